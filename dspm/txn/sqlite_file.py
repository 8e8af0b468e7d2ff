"""SQLite files as a source: checked, settled, and held still while they are read.

A file in a rollback mode is read as it is, under SQLite's own SHARED lock: byte for byte, no copy. A file in
write-ahead mode is copied by SQLite's backup first, because part of it may be in the log. A hot journal is rolled back
by SQLite where the file can be written, as the next program that opens it would do; otherwise it is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes

from dspm.errors import BusyError, DataError, DspmError

HEADER_SIZE = 100
_MAGIC = b"SQLite format 3\0"
_LOCK_WAIT_S = 5.0
_BACKUP_PAGES = 1024

_FOREIGN = "`dspm import` takes SQLite databases only"
_DAMAGED = "check it with `sqlite3 FILE 'PRAGMA integrity_check'`, or restore it from a backup"

Copied = Callable[[int, int], None]
"""Told how many of how many pages are copied."""


def check_header(path: Path, head: bytes, size: int) -> None:
    """Refuses what is no whole SQLite database, judged by its first 100 bytes and its size in bytes.

    Raises:
        DataError: it is foreign, cut off or damaged.
    """
    if size == 0:
        raise DataError(f"{path} is empty: it is no SQLite database", _FOREIGN)
    if len(head) < HEADER_SIZE or not head.startswith(_MAGIC):
        raise DataError(f"{path} is no SQLite database", _FOREIGN)
    (page_size,) = struct.unpack_from(">H", head, 16)
    page_size = 65536 if page_size == 1 else page_size
    versions = set(head[18:20])
    if page_size < 512 or page_size & (page_size - 1) or not versions <= {1, 2} or head[21:24] != b"\x40\x20\x20":
        raise DataError(f"{path} is damaged: its header makes no sense", _DAMAGED)
    if size % page_size:
        raise DataError(f"{path} is damaged: {size} bytes are not a number of pages of {page_size}", _DAMAGED)
    counter, pages = struct.unpack_from(">II", head, 24)
    (valid_for,) = struct.unpack_from(">I", head, 92)
    if counter == valid_for and pages * page_size > size:
        raise DataError(f"{path} is cut off: it has {size} bytes of {pages * page_size}", _DAMAGED)


@contextlib.contextmanager
def settled(path: Path, copied: Copied = lambda _done, _total: None) -> Iterator[BinaryIO]:
    """The database's bytes, complete and unchanging while the block runs.

    Raises:
        DataError: it is no SQLite database, or damaged.
        BusyError: another program writes it.
        DspmError: it is missing or cannot be read.
    """
    try:
        source = _open_raw(path)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) else e
        raise DspmError(f"{path} cannot be read: {why}", "check the path and its permissions") from None
    # This descriptor is closed last: closing any of a file's descriptors drops all POSIX locks of the process on it.
    with contextlib.ExitStack() as stack:
        stack.enter_context(source)
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise DspmError(f"{path} is not a regular file", _FOREIGN)
        _check(path, source)
        db = stack.enter_context(contextlib.closing(_open(path)))
        with _explained(path):
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # takes SHARED; settles a hot journal
            in_wal_mode = db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        if in_wal_mode:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dspm-import-"))) / "copy"
            with _explained(path):
                db.execute("COMMIT")
                _back_up(db, copy, copied)
            source = stack.enter_context(_open_raw(copy))
        _check(path, source)
        yield source


def _open_raw(path: Path) -> BinaryIO:
    # Not blocking, or a pipe would be waited for.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _check(path: Path, source: BinaryIO) -> None:
    size = os.fstat(source.fileno()).st_size
    check_header(path, os.pread(source.fileno(), HEADER_SIZE, 0), size)


def _open(path: Path) -> sqlite3.Connection:
    """A connection of the host's own SQLite: read-write, so that it can settle; read-only where it has to be."""
    alone = not any(path.with_name(path.name + s).exists() for s in ("-journal", "-wal"))
    modes = ["rw", "ro", *(["ro&immutable=1"] if alone and not os.access(path.parent, os.W_OK) else [])]
    if not os.access(path, os.W_OK):
        del modes[0]
    for mode in modes:
        uri = f"file:{quote_from_bytes(os.fsencode(path.absolute()), safe='/')}?mode={mode}"
        with _explained(path):
            db = sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
        try:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as e:
            if mode == modes[-1] or _primary(e) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                db.close()
                raise _error(path, e) from None
            db.close()
        except sqlite3.DatabaseError as e:
            db.close()
            raise _error(path, e) from None
        else:
            return db
    raise DspmError(f"{path} cannot be opened", "check its permissions")


def _back_up(db: sqlite3.Connection, to: Path, copied: Copied) -> None:
    with contextlib.closing(sqlite3.connect(to, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous=OFF")
        db.backup(target, pages=_BACKUP_PAGES, progress=lambda _s, left, total: copied(total - left, total))
        target.execute("PRAGMA journal_mode=DELETE")  # merges the log that the copied header asks for


def _primary(e: sqlite3.Error) -> int:
    return getattr(e, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:
        raise _error(path, e) from None


def _error(path: Path, e: sqlite3.Error) -> DspmError:
    code = _primary(e)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError(f"{path} is in use: {e}", "wait until the program that writes it is done")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return DataError(f"{path} is damaged: {e}", _DAMAGED)
    if code == sqlite3.SQLITE_READONLY:
        why = "it has a journal of a crashed program, and cannot be written"
        return DataError(f"{path} is not settled: {why}", "open it once with sqlite3 where it can be written")
    return DspmError(f"{path} cannot be read: {e}", "check its permissions and room")
