"""What SQLite may assume of a dataset, and of a journal."""

from __future__ import annotations

import apsw

from dspm.txn.pages import PAGE_SIZE

SECTOR_SIZE = PAGE_SIZE
"""The dataset's page."""

CHARACTERISTICS = (
    apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE  # no sector needs to be journalled as a whole
    | apsw.SQLITE_IOCAP_SAFE_APPEND  # one journal header is enough
    | apsw.SQLITE_IOCAP_SEQUENTIAL  # all writes arrive in one commit: no journal needs a sync
    | apsw.SQLITE_IOCAP_SUBPAGE_READ  # parts of a page may be read
)
"""Not BATCH_ATOMIC: commits are atomic anyway. Not UNDELETABLE_WHEN_OPEN: a journal belongs to its name."""
