"""One open database: what SQLite's calls mean for a dataset.

| SQLite asks for | dspm does |
| --- | --- |
| NONE → SHARED | a snapshot; with a place in the queue, at most `TURN_S` for the lease first |
| SHARED → RESERVED | the process's writer mutex and the group's lease, on top of that snapshot: a newer commit is \
BUSY_SNAPSHOT, an open transaction BUSY and a place in the queue |
| → PENDING, EXCLUSIVE | nothing: readers keep their snapshots, so nobody has to leave |
| COMMIT_PHASETWO | the overlay becomes one commit (`attach`, `publish`) |
| → SHARED | the reservation ends; what was not published is gone, what was shown last stays the snapshot |
| → NONE | the snapshot ends |

A refused writer keeps its place in the queue over the program's retries, and waits for its turn where a snapshot is
taken: one taken before the lease arrives would be stale on arrival. It loses the place when it comes to read only.

Invariants: from SHARED on there is a snapshot, or the reservation and its overlay, never both; the dataset changes only
in `publish`, once a transaction; what the pager cached of a transaction that was not stored is never taken for the
dataset's content.

Fault model: every call of the dataset may fail at any time, the program may fork, and a signal's exception may come out
of any line here; all of it becomes a result code (`entry`). SQLite calls a database from one thread at a time.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from dspm.engine.pyvfs import characteristics, codes, control, header
from dspm.engine.pyvfs.codes import During
from dspm.engine.pyvfs.overlay import Overlay, read_pages
from dspm.engine.pyvfs.shared import Shared
from dspm.errors import BusyError, ConflictError, DspmError, UsageError
from dspm.txn.dataset import Dataset
from dspm.txn.reservation import Reservation
from dspm.txn.snapshot import Snapshot

NONE, SHARED, RESERVED = apsw.SQLITE_LOCK_NONE, apsw.SQLITE_LOCK_SHARED, apsw.SQLITE_LOCK_RESERVED

TURN_S = 0.1
"""How long a queued writer waits for its turn before it takes a snapshot anyway."""

_HOLD_TRIES = 8
"""How often `locking_mode=EXCLUSIVE` takes a new snapshot when other commits keep coming before the lease."""

_PROBE = (16, 24)
"""SQLite validates what its pager has cached by so many bytes at this offset of page 1."""

P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate["Database", P], R]


def entry(during: During) -> Callable[[Method[P, R]], Method[P, R]]:
    """Makes a result code of whatever an entry raises. apsw would answer ERROR for exceptions that it does not know,
    and that leaves a write transaction open.
    """

    def decorate(method: Method[P, R]) -> Method[P, R]:
        @functools.wraps(method)
        def run(self: Database, /, *arguments: P.args, **named: P.kwargs) -> R:
            try:
                self.check_owner()
                return method(self, *arguments, **named)
            except apsw.Error:
                raise
            except BaseException as e:
                raise self.failed(e, during) from e

        return run

    return decorate


class Database:
    """An open database, with the methods that apsw calls of a file."""

    def __init__(self, shared: Shared, name: str, dataset: Dataset, read_only: bool) -> None:
        self.shared = shared
        self.name = name
        self.dataset = dataset
        self.read_only = read_only
        self.level = NONE
        self.overlay: Overlay | None = None
        self.lsn: int | None = None
        """Of the state that is shown; None without one."""
        self.refused = False
        """This transaction may not be published: another VFS decides it, or its publish failed."""
        self.decided = False
        """This transaction was published; what SQLite still has to say about it changes nothing."""
        self.foreign_super: str | None = None
        """A super-journal of another VFS that this transaction was refused for."""
        self.exclusive = False
        """`locking_mode=EXCLUSIVE` was asked for."""
        self.connection_at = 0
        self.last_error = ""
        self._holding = False
        self._snapshot: Snapshot | None = None
        self._reservation: Reservation | None = None
        self._turn_idle = False
        """The present read transaction waited for its turn and did not try to write yet."""
        self.as_of = 0
        """The past commit that is read; 0 in the present."""
        self._moves = 0
        """How often it was moved to another time."""
        self._distrust_cache = False
        """What the pager cached may not be what is stored: the next probe answers something else, once."""
        self._pid = os.getpid()

    def check_owner(self) -> None:
        """Nothing of a parent's database may be touched: its locks, sockets and lease are the parent's."""
        if self._pid != os.getpid():
            raise UsageError(f"{self.name} was opened before a fork", "open it again in the child")

    def failed(self, error: BaseException, during: During) -> apsw.Error:
        """What an entry raises for an error; it is remembered for `PRAGMA dspm_error` and told to SQLite's log."""
        if during is During.READ and self.overlay is not None:
            during = During.WRITE
        result = codes.code(error, during)
        text = codes.text(self.name, error)
        if not codes.is_ordinary(result):
            self.last_error = self.shared.last_error = text
            apsw.log(result, f"dspm-py: {text}")
        return codes.failure(text, result)

    def connection(self) -> int:
        """Address of the connection (`sqlite3*`) that uses the file now; 0 if SQLite never said."""
        # FCNTL_PDB gave a pointer into the b-tree that owns this file, and closes the file before it goes.
        return (ctypes.c_void_p.from_address(self.connection_at).value or 0) if self.connection_at else 0

    # ---- reading and writing ----

    @entry(During.READ)
    def xRead(self, amount: int, offset: int) -> bytes:
        """Short at the end of the database, where apsw fills in zeros."""
        if self.overlay is not None:
            content = self.overlay.read(offset, max(0, min(amount, self.overlay.size - offset)))
        else:
            # sqlite3_open looks at the header before any lock.
            snapshot = self._snapshot or self.dataset.snapshot()
            content = read_pages(snapshot.read, offset, max(0, min(amount, snapshot.size - offset)))
        if offset == 0:
            content = header.disguised(header.without_wal(content), self._moves)
        if self._distrust_cache and (amount, offset) == _PROBE and content:
            self._distrust_cache = False
            content = bytes([content[0] ^ 0x80]) + content[1:]
        return content

    @entry(During.WRITE)
    def xWrite(self, data: bytes, offset: int) -> None:
        """Into the overlay."""
        stored = header.disguised(bytes(data), self._moves) if offset == 0 else bytes(data)
        self._changing("a write").write(offset, stored)

    @entry(During.WRITE)
    def xTruncate(self, size: int) -> None:
        """Of the overlay."""
        self._changing("a truncation").truncate(size)

    @entry(During.COMMIT)
    def xSync(self, flags: int) -> None:
        """Durability is the dataset's and comes with the commit."""
        self._changing("a sync")

    @entry(During.SIZE)
    def xFileSize(self) -> int:
        """In bytes, as the transaction sees it."""
        return (self.overlay or self._snapshot or self.dataset).size

    def _changing(self, what: str) -> Overlay:
        if self.overlay is None:
            raise UsageError(f"{what} without a write lock", "this is a bug of whoever calls the VFS")
        return self.overlay

    # ---- locks ----

    @entry(During.LOCK)
    def xLock(self, level: int) -> None:
        """See the table above."""
        if self.level == NONE and level > NONE:
            self._begin_read()
            self.level = SHARED
        if self.level < RESERVED <= level:
            self._begin_write()
        self.level = max(self.level, level)

    def xUnlock(self, level: int) -> None:
        """Does nothing in a forked child, which runs it when it exits."""
        if self._pid == os.getpid():
            self._unlock(level)

    @entry(During.UNLOCK)
    def _unlock(self, level: int) -> None:
        if self.level >= RESERVED > level:
            self._end_write()
        if self.level > NONE and level == NONE:
            self._end_read()
        self.level = min(self.level, level)

    @entry(During.LOCK)
    def xCheckReservedLock(self) -> bool:
        """Whether some handle of this process is writing."""
        return self.dataset.is_reserved

    def _begin_read(self) -> None:
        if self._snapshot is not None:  # immutable, or of the past
            return
        for _ in range(_HOLD_TRIES):
            snapshot = self._new_snapshot()
            if not self.exclusive or self._holding or self.read_only:
                return self._show(snapshot)
            try:
                return self._take_hold(snapshot)
            except ConflictError:
                continue
        raise BusyError(f"{self.name}: others commit faster than the lease comes")

    def _new_snapshot(self) -> Snapshot:
        self._turn_idle = self._reservation is not None and self._reservation.queued
        if self._reservation is None:
            return self.dataset.snapshot()
        return self._reservation.snapshot(TURN_S)

    def _take_hold(self, snapshot: Snapshot) -> None:
        """Takes the lease to keep it."""
        reservation = self._reserve(snapshot)
        # Held before the reservation ends, so that the lease cannot leave in between.
        self.shared.holds.take(self.dataset)
        self._holding = True
        self._show(reservation.finish())

    def _begin_write(self) -> None:
        if self.read_only:
            raise codes.failure(f"{self.name}: opened for reading only", apsw.SQLITE_READONLY)
        if self.as_of:
            text = f"the database is read as of commit {self.as_of}: PRAGMA dspm_as_of = 0 goes back to the present"
            self.last_error = self.shared.last_error = f"{self.name}: {text}"
            raise codes.failure(self.last_error, apsw.SQLITE_READONLY)
        if self._snapshot is None:
            raise UsageError("a reservation without a snapshot", "this is a bug of whoever calls the VFS")
        self._turn_idle = False
        self.shared.stages.remove_of(self.connection())
        reservation = self._reserve(self._snapshot)
        self.overlay = Overlay(reservation.read, self._snapshot.size)
        self._snapshot = None

    def _reserve(self, base: Snapshot) -> Reservation:
        if self._reservation is None:
            self._reservation = self.dataset.reservation()
        self._reservation.reserve(base)
        return self._reservation

    def _show(self, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot
        self.lsn = None if snapshot is None else snapshot.lsn

    def _end_write(self) -> None:
        # A pager that rolled back restored its cache from the journal. It is made to look again all the same: were the
        # replay skipped or failed, it would show rows that the dataset never had.
        self._distrust_cache |= self.overlay is not None and self.overlay.is_written
        self.overlay = None
        self.refused = self.decided = False
        self.shared.stages.remove(self)
        self.shared.journals.delete_leftover(f"{self.name}-journal")
        if self._reservation is not None and self._reservation.held:
            self._show(self._reservation.finish())

    def _end_read(self) -> None:
        if not self.as_of:
            self._show(None)
        if self._turn_idle and self._reservation is not None:
            self._reservation.forget()
        self._turn_idle = False
        if self.foreign_super is not None:
            self.shared.journals.delete(self.foreign_super)
            self.foreign_super = None

    # ---- the end of a transaction ----

    @property
    def reservation(self) -> Reservation | None:
        """The right to write, if there is one."""
        return self._reservation

    def committed(self, lsn: int, hidden: bool) -> None:
        """What was gathered is stored; `hidden`: not as the pager has it cached."""
        self.lsn = lsn
        self._distrust_cache |= hidden

    def give_up(self, error: DspmError) -> None:
        """What was gathered is not stored. The counter of a lost transaction and of the one that won are the same
        number.
        """
        if self.overlay is not None:
            self._distrust_cache |= self.overlay.is_written
            self.overlay.restart(self.overlay.size_before)
        self.last_error = codes.text(self.name, error)

    # ---- the rest ----

    @entry(During.COMMIT)
    def xFileControl(self, operation: int, argument: int) -> bool:
        """See `control`."""
        return control.control(self, operation, argument)

    def xSectorSize(self) -> int:
        """The dataset's page."""
        return characteristics.SECTOR_SIZE

    def xDeviceCharacteristics(self) -> int:
        """What SQLite may assume."""
        return characteristics.CHARACTERISTICS

    def set_exclusive(self, exclusive: bool) -> None:
        """`PRAGMA locking_mode`. The lease is taken with the next SHARED, and kept until NORMAL or the end."""
        self.exclusive = exclusive
        if not exclusive and self._holding:
            self._holding = False
            self.shared.holds.drop(self.dataset)

    @entry(During.OPEN)
    def pin(self) -> None:
        """Takes the one snapshot that an immutable database is read from."""
        self._show(self.dataset.snapshot())

    @entry(During.OPEN)
    def open_as_of(self, time: str) -> None:
        """`as_of=` in the URI."""
        self.set_as_of(time)

    def set_as_of(self, time: str) -> None:
        """Moves to another time. One snapshot of the past is kept until the next move, so that the same state is read
        however often SQLite looks. What it cached at one time must not be taken for the content at another: change
        counter and schema cookie tell commits apart only while nobody sets them by hand.
        """
        if self.level != NONE:
            what = "dspm_as_of cannot change inside a transaction: end it first, and finish statements that still run"
            raise UsageError(what)
        if self._snapshot is not None and not self.as_of:
            raise UsageError("an immutable database is read at one commit: open it with as_of= instead")
        present = time.strip().lower() in ("0", "now")
        moved = None if present else self.dataset.snapshot(as_of=time)
        if present and not self.as_of:
            return
        self._show(moved)
        self.as_of = 0 if moved is None else moved.lsn
        if self._reservation is not None:
            self._reservation.forget()
        self._distrust_cache = True
        self._moves += 1

    def xClose(self) -> None:
        """Ends everything that the handle has; in a forked child all of it is the parent's."""
        if self._pid != os.getpid():
            return
        self._unlock(NONE)
        self._show(None)
        if self._reservation is not None:
            self._reservation.forget()
            self._reservation = None
        self.set_exclusive(False)
        self.dataset.close()
