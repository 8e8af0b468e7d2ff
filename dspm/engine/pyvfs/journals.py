"""The journals of the process, by name: memory, beyond a limit an unlinked temporary file.

A journal serves only the rollback of the transaction that wrote it, in this process: nothing of it is durable, and the
dataset is changed by a commit alone. So no journal is ever hot, whatever process died.
"""

from __future__ import annotations

import os
import threading
from tempfile import SpooledTemporaryFile

import apsw

from dspm.engine.pyvfs import characteristics, codes

MEMORY_MAX = 8 << 20
"""Most bytes of one journal in memory."""


class Journal:
    """The content of one journal, shared by all who have it open."""

    def __init__(self) -> None:
        self._content = SpooledTemporaryFile(max_size=MEMORY_MAX)  # noqa: SIM115
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes it has."""
        with self._lock:
            return self._content.seek(0, os.SEEK_END)

    @property
    def is_blank(self) -> bool:
        """True unless it begins with a journal's header: a transaction that has ended leaves it so."""
        return self.read(0, 1) in (b"", b"\0")

    def read(self, offset: int, amount: int) -> bytes:
        """Bytes from `offset` on, as many as there are."""
        with self._lock:
            self._content.seek(offset)
            return self._content.read(amount)

    def write(self, offset: int, data: bytes) -> None:
        """Writes, growing as needed. A gap reads as zeros."""
        with self._lock:
            self._content.seek(offset)
            self._content.write(data)

    def truncate(self, size: int) -> None:
        """Cuts it off. One that is emptied begins again in memory, and gives its room back."""
        with self._lock:
            if size == 0:
                self._content.close()
                self._content = SpooledTemporaryFile(max_size=MEMORY_MAX)  # noqa: SIM115
            else:
                self._content.truncate(size)


class Journals:
    """All journals and super-journals of the process."""

    def __init__(self) -> None:
        self._by_name: dict[str, Journal] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Journal | None:
        """The journal of that name."""
        return self._by_name.get(name)

    def is_in_use(self, name: str) -> bool:
        """True if there is one that a transaction has begun to write.

        What `journal_mode` PERSIST and TRUNCATE leave does not count: it would make each read transaction look for a
        hot journal in it.
        """
        journal = self.get(name)
        return journal is not None and not journal.is_blank

    def create(self, name: str, must_be_new: bool) -> Journal | None:
        """The journal of that name, made if there is none; None if it had to be new and is not."""
        with self._lock:
            if must_be_new and name in self._by_name:
                return None
            return self._by_name.setdefault(name, Journal())

    def delete(self, name: str) -> bool:
        """Forgets it; those who have it open keep its content. False if there was none."""
        with self._lock:
            return self._by_name.pop(name, None) is not None

    def delete_leftover(self, name: str) -> None:
        """Deletes the journal of a transaction that has ended without finalizing it: it has nothing to roll back."""
        if self.is_in_use(name):
            self.delete(name)


class JournalFile:
    """An open journal, with the methods that apsw calls of a file."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._pid = os.getpid()

    def _own(self, result: int) -> Journal:
        """The journal; in a forked child it is the parent's, whose place in a temporary file is shared."""
        if self._pid != os.getpid():
            raise codes.failure("the journal was opened before a fork", result)
        return self._journal

    def xRead(self, amount: int, offset: int) -> bytes:
        """Short at the end, where apsw fills in zeros."""
        return self._own(apsw.SQLITE_IOERR_READ).read(offset, amount)

    def xWrite(self, data: bytes, offset: int) -> None:
        """May leave memory for the temporary directory, which may be full."""
        try:
            self._own(apsw.SQLITE_IOERR_WRITE).write(offset, bytes(data))
        except OSError as e:
            raise codes.failure(f"a journal in the temporary directory: {e}", apsw.SQLITE_IOERR_WRITE) from e

    def xTruncate(self, size: int) -> None:
        """Empties it, or cuts it to `journal_size_limit`."""
        self._own(apsw.SQLITE_IOERR_TRUNCATE).truncate(size)

    def xFileSize(self) -> int:
        """Bytes it has."""
        return self._own(apsw.SQLITE_IOERR_FSTAT).size

    def xSync(self, flags: int) -> None:
        """Nothing of a journal is durable."""

    def xLock(self, level: int) -> None:
        """SQLite locks databases only."""

    def xUnlock(self, level: int) -> None:
        """SQLite locks databases only."""

    def xCheckReservedLock(self) -> bool:
        """SQLite locks databases only."""
        return False

    def xFileControl(self, operation: int, argument: int) -> bool:
        """None is known."""
        return False

    def xSectorSize(self) -> int:
        """The dataset's."""
        return characteristics.SECTOR_SIZE

    def xDeviceCharacteristics(self) -> int:
        """The dataset's."""
        return characteristics.CHARACTERISTICS

    def xClose(self) -> None:
        """The journal stays until it is deleted by name."""
