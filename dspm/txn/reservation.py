"""Write transactions for engines: database code that brings its own transactions, such as a SQLite VFS.

A program uses :class:`dspm.txn.Transaction`, which waits for its turn and takes the newest state. An engine has read
already when it wants to write, so it needs the answers one by one: a snapshot first, then the reservation on top of
exactly that snapshot, or a clear no.

Invariants: a refused reservation keeps its place in the queue until :meth:`Reservation.forget`, and the next snapshot
waits for the turn; what the transaction showed last stays readable after it, whatever others commit.
"""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

from dspm import _native
from dspm.errors import BusyError, ConflictError, UsageError
from dspm.txn.pages import PAGE_SIZE, PageNo
from dspm.txn.snapshot import Snapshot, checked_count, read_range


class Reservation:
    """The right to write a dataset, and the place in the queue for it. Made by :meth:`Dataset.reservation`.

    `held` says whether this is the dataset's only writer now, `queued` whether it waits for that. One thread at a time.
    """

    def __init__(self, dataset: Any) -> None:
        ffi, lib = _native.load()
        out = ffi.new("dspm_transaction **")
        _native.call("dspm_transaction_new", dataset, out)
        self._handle = ffi.gc(out[0], lib.dspm_transaction_free)
        self.held = False
        self.queued = False

    def snapshot(self, wait: float) -> Snapshot:
        """Begins a read; with a place in the queue, waits for the turn first, at most `wait` seconds.

        Raises:
            UnavailableError: no answer within `commit_timeout`.
        """
        return Snapshot.from_call("dspm_transaction_snapshot", self._handle, int(wait * 1000))

    def reserve(self, base: Snapshot) -> None:
        """Becomes the only writer on top of `base`, at once.

        Raises:
            BusyError: another transaction writes; the place in the queue is kept.
            ConflictError: there were commits after `base`.
            UnavailableError: no answer within `commit_timeout`.
        """
        try:
            _native.call("dspm_transaction_reserve_at", self._handle, base._open())
        except BusyError:
            self.queued = True
            raise
        except ConflictError:
            self.queued = False
            raise
        self.held, self.queued = True, False

    def read(self, page: PageNo, count: int = 1) -> bytes:
        """Pages of the state that it is based on, or of its last commit; only while it is held."""
        out = bytearray(checked_count(page, count) * PAGE_SIZE)
        read_range("dspm_transaction_read", self._handle, out, page)
        return bytes(out)

    def commit(self, pages: Mapping[int, bytes], size: int) -> int:
        """Commits whole pages and the size, and goes on as the only writer. Returns the LSN.

        Raises:
            ConflictError: fenced, and another commit came; nothing was committed.
            FullError: no room, or too much for one commit; nothing was committed.
            OutcomeUnknownError: nobody could be asked whether it is committed.
            UnavailableError: no answer within `commit_timeout`.
        """
        return commit_pages(self._handle, pages, size)

    @staticmethod
    def commit_together(parts: Sequence[tuple[Reservation, Mapping[int, bytes], int]]) -> list[int]:
        """Commits pages and size of each, or nothing of any, and goes on as the only writer of all. Returns the LSNs.

        Raises:
            As :meth:`commit`; UsageError for datasets of two clusters.
        """
        return commit_parts([(r._handle, pages, size) for r, pages, size in parts])

    def confirm(self) -> None:
        """Asks, with one round trip, whether this is still the writer.

        Raises:
            ConflictError: it is not.
        """
        _native.call("dspm_transaction_confirm", self._handle)

    def finish(self) -> Snapshot:
        """Ends it. The answer shows what it showed last."""
        if not self.held:
            raise UsageError("the reservation is not held", "reserve it first")
        self.held = False
        return Snapshot.from_call("dspm_transaction_finish", self._handle)

    def forget(self) -> None:
        """Gives the place in the queue back, and the reservation if it is held. Never waits."""
        _, lib = _native.load()
        self.held = self.queued = False
        lib.dspm_transaction_release(self._handle)


def commit_pages(handle: Any, pages: Mapping[int, bytes], size: int) -> int:
    """Commits by the library's transaction; returns the LSN."""
    ffi, _ = _native.load()
    numbers = sorted(pages)
    listed = ffi.from_buffer("uint64_t[]", array.array("Q", numbers))
    content = ffi.from_buffer("char[]", b"".join(pages[n] for n in numbers))
    lsn = ffi.new("uint64_t *")
    _native.call("dspm_transaction_commit", handle, listed, content, len(numbers), size, lsn)
    return int(lsn[0])


def commit_parts(parts: Sequence[tuple[Any, Mapping[int, bytes], int]]) -> list[int]:
    """Commits by several of the library's transactions, all or none; returns the LSNs."""
    ffi, _ = _native.load()
    c_parts = ffi.new("dspm_part[]", len(parts))
    buffers = []  # alive until the call is over
    for c_part, (handle, pages, size) in zip(c_parts, parts, strict=True):
        numbers = sorted(pages)
        listed = ffi.from_buffer("uint64_t[]", array.array("Q", numbers))
        content = ffi.from_buffer("char[]", b"".join(pages[n] for n in numbers))
        buffers.append((listed, content))
        c_part.transaction, c_part.pages, c_part.content = handle, listed, content
        c_part.count, c_part.size = len(numbers), size
    _native.call("dspm_commit_together", c_parts, len(parts))
    return [int(c_part.lsn) for c_part in c_parts]
