"""A dataset becomes a file: byte for byte one snapshot, whole or not at all.

Invariants: the bytes go to FILE.part, which is synced before it gets the name FILE; a failure leaves neither. A file
beside FILE that SQLite would apply to it (a journal, a write-ahead log) is never left to spoil it: that is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dspm.errors import BusyError, DspmError
from dspm.txn.dataset import Dataset
from dspm.txn.pages import PAGE_SIZE, PageNo, page_count
from dspm.txn.progress import Progress, Silent
from dspm.txn.snapshot import Snapshot

_CHUNK_BYTES = 4 << 20
_DIRECTORY = b"dspmdir\0"  # docs/formats/directory.md
_MODE = 0o666


@dataclass(frozen=True)
class Exported:
    """What was done."""

    size: int
    lsn: int
    seconds: float


def export_file(
    name: str,
    path: Path,
    *,
    force: bool = False,
    as_of: int | str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Writes the newest state of a dataset to a file, or an old one. Writers go on meanwhile.

    Args:
        name: of the dataset, as programs open it.
        path: of the file.
        force: replace a file that exists, in one step.
        as_of: a state of the past, as for :meth:`dspm.Dataset.snapshot`.
        progress: told what happens.

    Raises:
        NotFoundError: there is no dataset of that name.
        TooOldError: the state is not kept any more, or could not be kept until the end.
        BusyError: another export writes that file.
        DspmError: the file exists, or lies where it cannot be written; the dataset is a path with many files.
    """
    began = time.monotonic()
    _refuse(path, force)
    with Dataset.open(name, readonly=True) as ds, ds.snapshot(as_of=as_of) as s:
        if s.size and s.read(PageNo(0)).startswith(_DIRECTORY):
            raise DspmError(
                f"{name} holds WiredTiger's files, not one database", "export it with a tool of its program"
            )
        with _part(path, force) as fd:
            _write(s, fd, progress or Silent())
        return Exported(s.size, s.lsn, time.monotonic() - began)


def _refuse(path: Path, force: bool) -> None:
    if path.is_dir():
        raise DspmError(f"{path} is a directory", "name a file in it")
    if not path.parent.is_dir():
        raise DspmError(f"{path.parent} is not a directory", "make it first")
    if os.path.lexists(path) and not force:
        raise _exists(path)
    for suffix in ("-journal", "-wal"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise DspmError(
                f"{beside} lies beside it, and SQLite would apply it to the exported file",
                "choose another name, or move it away if no program uses it",
            )


def _exists(path: Path) -> DspmError:
    return DspmError(f"{path} exists already", "give --force to replace it")


def _write(s: Snapshot, fd: int, shown: Progress) -> None:
    shown.stage("reading", s.size)
    buffer = bytearray(_CHUNK_BYTES)
    for at in range(0, s.size, _CHUNK_BYTES):
        length = min(_CHUNK_BYTES, s.size - at)
        s.read_into(memoryview(buffer)[: page_count(length) * PAGE_SIZE], PageNo(at // PAGE_SIZE))
        rest = memoryview(buffer)[:length]
        while rest:
            rest = rest[os.write(fd, rest) :]
        shown.advance(at + length)
    shown.stage("syncing", 0)
    os.fsync(fd)


@contextlib.contextmanager
def _part(path: Path, force: bool) -> Iterator[int]:
    """A descriptor of FILE.part, which becomes FILE where the block ends well and is removed where it does not."""
    part = path.with_name(path.name + ".part")
    fd = _open_locked(part)
    try:
        os.ftruncate(fd, 0)
        yield fd
        _rename(part, path, force)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    finally:
        os.close(fd)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open_locked(part: Path) -> int:
    """The part file, which no other export writes. One that a killed export left is taken over."""
    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who had it may have given it its name, or removed it, in between.
            if os.path.lexists(part) and os.path.samestat(os.fstat(fd), os.lstat(part)):
                return fd
            os.close(fd)
        except BlockingIOError:
            os.close(fd)
            raise BusyError(
                f"{part} is being written by another export", "wait for it, or choose another file"
            ) from None
        except BaseException:
            os.close(fd)
            raise


def _rename(part: Path, path: Path, force: bool) -> None:
    if force:
        os.replace(part, path)
        return
    try:
        os.link(part, path)  # unlike a rename it fails where somebody made the file meanwhile
    except FileExistsError:
        raise _exists(path) from None
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(path):
            raise _exists(path) from None
        os.replace(part, path)  # a file system without links
        return
    part.unlink()
