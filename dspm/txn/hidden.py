"""Names of datasets that are being made: nobody sees them until they are whole.

An import writes into ``.import-TIME-RANDOM`` (under the namespace) and renames that in the end. Names whose last part
begins with a mark of this module are not listed by ``dspm ls``; ``dspm status`` shows them, for they take memory. What
a killed import left behind is removed by the next one: its writer lease is free, and it is older than a minute.
"""

from __future__ import annotations

import contextlib
import secrets
import time

from dspm.errors import DspmError, UsageError
from dspm.txn.catalog import list_datasets, remove
from dspm.txn.dataset import Dataset

IMPORT = ".import-"
"""Mark of a dataset that an import writes."""

REPLACED = ".replaced-"
"""Mark of a dataset that an import is about to replace. It is never removed as a leftover: it may be the only one."""

_FRESH_S = 60
"""Younger leftovers may belong to an import that has not taken its lease yet."""


def fresh_name(mark: str) -> str:
    """A hidden name that nobody has."""
    return f"{mark}{int(time.time()):x}-{secrets.token_hex(8)}"


def is_hidden(name: str) -> bool:
    """True for datasets that are not listed."""
    return name.rpartition("/")[2].startswith((IMPORT, REPLACED))


def check_visible(name: str) -> str:
    """The whole name, if it is one that a database can be opened by."""
    last = name.rpartition("/")[2]
    if is_hidden(name) or last == ".." or last.endswith(("-journal", "-wal", "-shm")):
        raise UsageError(f"{name[:80]!r} is no name for a database", "choose one such as orders.db")
    return name


def remove_leftovers(namespace: str) -> None:
    """Removes what killed imports left. Never fails: it only tidies up."""
    prefix = f"{namespace}/{IMPORT}" if namespace else IMPORT
    with contextlib.suppress(DspmError):
        for entry in list_datasets():
            if entry.name.startswith(prefix) and time.time() - _made(entry.name) > _FRESH_S:
                _remove_if_dead(entry.name.removeprefix(f"{namespace}/") if namespace else entry.name)


def _made(name: str) -> float:
    try:
        return int(name.rpartition(IMPORT)[2].partition("-")[0], 16)
    except ValueError:
        return time.time()


def _remove_if_dead(name: str) -> None:
    """A live import holds the write lease all the time."""
    with contextlib.suppress(DspmError), Dataset.open(name) as ds, ds.transaction(wait=0):
        remove(name)
