"""A SQLite file becomes a dataset, whole or not at all.

Invariants: the pages go into a hidden dataset, in commits of at most 4 MiB, and what was read back from the nodes is
compared before the dataset gets its name; until then nobody sees anything. The import is that dataset's writer all the
time, which is how another import knows that it lives. Memory is bounded, whatever the file's size.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import xxhash

from dspm.errors import DataError, DspmError, FullError, NotFoundError
from dspm.netram.config import load_cluster
from dspm.netram.names import dataset_name
from dspm.txn import hidden
from dspm.txn.catalog import locate, remove, rename
from dspm.txn.dataset import Dataset
from dspm.txn.pages import PAGE_SIZE, PageNo, page_count
from dspm.txn.progress import Progress, Silent
from dspm.txn.snapshot import Snapshot
from dspm.txn.sqlite_file import settled
from dspm.txn.transaction import Transaction

COMMIT_BYTES = 4 << 20
"""Most bytes of one commit."""

_READ_BYTES = 4 << 20
_VERIFY_CACHE = "8MiB"
_FORMAT_VERSIONS = slice(18, 20)
_ROOM_WAIT_S = 60.0
_ROOM_PAUSE_S = 0.2
_SHOWN_MAX = 200


@dataclass(frozen=True)
class Imported:
    """What was done: bytes, seconds in all, and the bytes per second of writing alone and of reading back alone."""

    size: int
    seconds: float
    write_rate: float
    verify_rate: float


def import_file(
    path: Path, name: str, *, replace: bool = False, check: bool = False, progress: Progress | None = None
) -> Imported:
    """Makes a dataset of a SQLite file.

    Args:
        path: the file; it may be in use by readers, and in any journal mode.
        name: of the dataset, as programs open it.
        replace: a dataset of that name may exist; it is replaced, in one step. Programs that have it open get errors.
        check: run PRAGMA integrity_check on what was stored, before it gets its name.
        progress: told what happens.

    Raises:
        UsageError: the name cannot be used.
        DataError: the file is no SQLite database, or damaged, or what was read back differs.
        BusyError: another program writes the file.
        FullError: the nodes have no room for it.
        DspmError: the file cannot be read, or the name is taken.
    """
    began = time.monotonic()
    shown = progress or Silent()
    namespace = load_cluster().namespace
    hidden.check_visible(dataset_name(namespace, name))
    if not replace:
        _refuse_existing(name)
    hidden.remove_leftovers(namespace)
    shown.stage("copying the write-ahead database", 0)
    with settled(path, lambda done, total: shown.stage(f"copying: {done} of {total} pages", 0)) as source:
        size = os.fstat(source.fileno()).st_size
        temporary = hidden.fresh_name(hidden.IMPORT)
        try:
            with Dataset.open(temporary, create=True, exclusive=True) as ds, ds.transaction() as t:
                started = time.monotonic()
                digest = _copy(source, size, t, shown)
                written = time.monotonic()
                _verify(temporary, t.lsn, size, digest, shown)
                verified = time.monotonic()
                if check:
                    shown.stage("checking integrity", 0)
                    _check_integrity(temporary)
                _publish(ds.id, temporary, name, replace, t.lsn, size)
        except BaseException:
            with contextlib.suppress(DspmError):
                remove(temporary)
            raise
    rates = size / max(written - started, 1e-9), size / max(verified - written, 1e-9)
    return Imported(size, time.monotonic() - began, *rates)


def _refuse_existing(name: str) -> None:
    with contextlib.suppress(NotFoundError):
        locate(name)
        raise _taken(name)


def _taken(name: str) -> DspmError:
    return DspmError(f"a dataset named {name[:80]!r} exists already", "give --replace, or another name")


def _copy(source: BinaryIO, size: int, t: Transaction, shown: Progress) -> bytes:
    """Writes the file into the dataset; answers the checksum of what was written."""
    shown.stage("writing", size)
    checksum = xxhash.xxh3_128()
    buffer = bytearray(COMMIT_BYTES)
    done = 0
    source.seek(0)
    while done < size:
        length = min(COMMIT_BYTES, size - done)
        part = memoryview(buffer)[:length]
        if source.readinto(part) != length:  # type: ignore[attr-defined]
            raise DataError("the file became shorter while it was read", "stop the program that changes it")
        if done == 0 and 2 in part[_FORMAT_VERSIONS]:
            part[_FORMAT_VERSIONS] = b"\1\1"  # there is no write-ahead log here
        checksum.update(part)
        whole = page_count(length) * PAGE_SIZE
        memoryview(buffer)[length:whole] = bytes(whole - length)
        t.write(PageNo(done // PAGE_SIZE), memoryview(buffer)[:whole])
        t.truncate(done + length)
        _commit(t, shown)
        done += length
        shown.advance(done)
    return checksum.digest()


def _commit(t: Transaction, shown: Progress) -> None:
    """Commits; while the nodes have no room it waits for them to write older pages to disk."""
    until = time.monotonic() + _ROOM_WAIT_S
    while True:
        try:
            t.commit()
        except FullError:
            if time.monotonic() >= until:
                raise
            shown.waiting("waiting for room")
            time.sleep(_ROOM_PAUSE_S)
        else:
            return shown.waiting("")


def _verify(name: str, lsn: int, size: int, digest: bytes, shown: Progress) -> None:
    """Reads everything back from the nodes, past the cache that the writing filled."""
    shown.stage("verifying", size)
    with Dataset.open(name, readonly=True, settings={"cache.size": _VERIFY_CACHE}) as ds, ds.snapshot() as s:
        if (s.lsn, s.size) != (lsn, size) or checksum(s, shown) != digest:
            raise DataError("what the nodes hold is not what was written", "this is a fault of dspm; please report it")


def checksum(s: Snapshot, shown: Progress) -> bytes:
    """xxh3-128 of a snapshot's bytes."""
    found = xxhash.xxh3_128()
    buffer = bytearray(_READ_BYTES)
    for at in range(0, s.size, _READ_BYTES):
        length = min(_READ_BYTES, s.size - at)
        s.read_into(memoryview(buffer)[: page_count(length) * PAGE_SIZE], PageNo(at // PAGE_SIZE))
        found.update(memoryview(buffer)[:length])
        shown.advance(at + length)
    return found.digest()


def _check_integrity(name: str) -> None:
    from dspm.engine.vfs import sqlite3_connect

    try:
        with contextlib.closing(sqlite3_connect(f"file:{quote(name)}?mode=ro")) as db:
            found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as e:
        found = str(e)
    if found != "ok":
        text = " ".join(found.split())[:_SHOWN_MAX]
        raise DataError(f"the database is damaged: {text}", "repair it (sqlite3's .recover), or leave out --check")


def _publish(dataset: int, temporary: str, name: str, replace: bool, lsn: int, size: int) -> None:
    """Gives the dataset its name: from here on it is seen, whole. What it replaces goes when that is certain."""
    old = hidden.fresh_name(hidden.REPLACED) if replace else None
    try:
        rename(temporary, name, aside=old)
    except BaseException:
        if not _is_named(dataset, name):
            if not replace:
                _refuse_existing(name)
            raise
        # It was done, only the answer was lost.
    with Dataset.open(name, readonly=True, settings={"cache.size": _VERIFY_CACHE}) as ds, ds.snapshot() as s:
        if (ds.id, s.lsn, s.size) != (dataset, lsn, size):
            kept = f"; what it replaced, if anything, is {old}, see `dspm ls --all`" if old else ""
            raise DataError(
                f"the nodes lost {name[:80]!r} when it got its name{kept}", "this is a fault of dspm; please report it"
            )
    if old:
        with contextlib.suppress(NotFoundError):
            remove(old)


def _is_named(dataset: int, name: str) -> bool:
    with contextlib.suppress(DspmError):
        return locate(name).dataset == dataset
    return False
