"""Datasets: named, growable arrays of bytes in 4 KiB pages, with snapshots and transactions.

with dspm.Dataset.open("counters", create=True) as ds:
    with ds.transaction() as t:
        t.write(PageNo(0), bytes(PAGE_SIZE))
    with ds.snapshot() as s:
        print(s.lsn, s.size, s.read(PageNo(0))[:8])
"""

from __future__ import annotations

from dspm.txn.catalog import Entry, list_datasets, locate, remove, rename
from dspm.txn.dataset import Dataset, Status
from dspm.txn.pages import COMMIT_PAGES_MAX, PAGE_SIZE, PageNo, page_count
from dspm.txn.snapshot import Snapshot
from dspm.txn.transaction import Transaction, commit_together

__all__ = [
    "COMMIT_PAGES_MAX",
    "PAGE_SIZE",
    "Dataset",
    "Entry",
    "PageNo",
    "Snapshot",
    "Status",
    "Transaction",
    "commit_together",
    "list_datasets",
    "locate",
    "page_count",
    "remove",
    "rename",
]
