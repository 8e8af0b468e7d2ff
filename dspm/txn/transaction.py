"""Write transactions.

Invariant: bytes of the last page beyond the dataset's size are zeros in the store, and so is every page that was cut
off; growing again, in the same transaction or years later, never shows what was there before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspm import _native
from dspm.errors import BusyError, FullError, UsageError
from dspm.txn.pages import COMMIT_PAGES_MAX, PAGE_SIZE, PAGES_MAX, PageNo, page_count
from dspm.txn.reservation import commit_pages, commit_parts
from dspm.txn.snapshot import checked_count, read_range

if TYPE_CHECKING:
    from typing_extensions import Buffer

WAIT_S = 5.0
"""How long a transaction waits for others by default."""

_SLICE_MS = 200
"""Longest call while waiting, so that signals (Ctrl-C) are seen."""


class Transaction:
    """The dataset's only writer, for the length of a ``with`` block. Made by :meth:`dspm.Dataset.transaction`.

    The block's end commits: all nodes that keep copies hold what was written before it returns. An exception in the
    block rolls back. `lsn` and `size` (bytes) show the state that the transaction is based on with its own changes;
    `lsn` becomes the commit's own number. It belongs to one thread.
    """

    def __init__(self, dataset: Any, base: int | None, wait_s: float) -> None:
        self._dataset = dataset
        self._base = base
        self._wait_s = wait_s
        self._handle: Any = None
        self.lsn = 0
        self.size = 0
        self._start(0, 0)

    def _start(self, lsn: int, size: int) -> None:
        self.lsn = lsn
        self.size = self._size_before = self._kept = size
        self._written: dict[int, bytes] = {}

    def __enter__(self) -> Transaction:
        if self._handle is not None:
            raise UsageError("the transaction is in use", "make another one")
        ffi, lib = _native.load()
        out = ffi.new("dspm_transaction **")
        _native.call("dspm_transaction_new", self._dataset, out)
        self._handle = ffi.gc(out[0], lib.dspm_transaction_free)
        try:
            self._start(*self._reserve(self._base))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self._end()

    def _reserve(self, base: int | None) -> tuple[int, int]:
        ffi, _ = _native.load()
        lsn, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        expected = _native.ANY_LSN if base is None else base
        until = time.monotonic() + self._wait_s
        while True:
            left_ms = max(0, int((until - time.monotonic()) * 1000))
            wait_ms = min(left_ms, _SLICE_MS)
            try:
                _native.call("dspm_transaction_reserve", self._open(), expected, wait_ms, lsn, size)
            except BusyError:
                if left_ms <= _SLICE_MS:
                    raise
            else:
                return int(lsn[0]), int(size[0])

    def _end(self) -> None:
        _, lib = _native.load()
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.dspm_transaction_release(handle)

    def _open(self) -> Any:
        if self._handle is None:
            raise UsageError("the transaction is over", "use it inside its with block")
        return self._handle

    def read(self, page: PageNo, count: int = 1) -> bytes:
        """`count` pages from `page` on, with the transaction's own changes: count × 4096 bytes."""
        out = bytearray(checked_count(page, count) * PAGE_SIZE)
        # Beyond what was kept of the state below everything is zeros, but for what was written since.
        below = min(count, max(0, page_count(self._kept) - page)) * PAGE_SIZE
        if below:
            read_range("dspm_transaction_read", self._open(), memoryview(out)[:below], page)
        for i in range(count):
            own = self._written.get(page + i)
            if own is not None:
                out[i * PAGE_SIZE : (i + 1) * PAGE_SIZE] = own
        return bytes(out)

    def write(self, page: PageNo, data: Buffer) -> None:
        """Writes whole pages from `page` on. A dataset that is smaller grows to their end.

        Args:
            page: the first page.
            data: contiguous, a multiple of 4096 bytes.

        Raises:
            UsageError: not whole pages.
            FullError: more than :data:`COMMIT_PAGES_MAX` pages (1 GiB) in one commit.
        """
        self._open()
        content = bytes(data)
        if len(content) % PAGE_SIZE or not content:
            raise UsageError(f"{len(content)} bytes are not a number of whole pages", f"a page has {PAGE_SIZE} bytes")
        count = checked_count(page, len(content) // PAGE_SIZE)
        fresh = count if count > COMMIT_PAGES_MAX else sum(page + i not in self._written for i in range(count))
        if len(self._written) + fresh > COMMIT_PAGES_MAX:
            raise FullError(
                f"more than {COMMIT_PAGES_MAX} pages in one commit", "commit in parts: Transaction.commit()"
            )
        for i in range(count):
            self._written[page + i] = content[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
        self.size = max(self.size, (page + count) * PAGE_SIZE)

    def truncate(self, size: int) -> None:
        """Sets the dataset's size in bytes: cuts off what lies beyond it, or grows by zeros."""
        self._open()
        if not 0 <= size <= PAGES_MAX * PAGE_SIZE:
            raise UsageError(f"a size of {size} bytes", f"use 0 to {PAGES_MAX * PAGE_SIZE}")
        if size < self.size:
            self._cut(size)
        self.size = size

    def _cut(self, size: int) -> None:
        whole, rest = divmod(size, PAGE_SIZE)
        if rest and (whole in self._written or whole < page_count(self._kept)):
            last = self.read(PageNo(whole))
            self._written[whole] = last[:rest] + bytes(PAGE_SIZE - rest)
        end = page_count(size)
        self._written = {page: content for page, content in self._written.items() if page < end}
        self._kept = min(self._kept, size)

    def _fill_last(self) -> None:
        """A last page that was partly used and is whole now: its writer may have left something beyond the size."""
        last, used = divmod(self._size_before, PAGE_SIZE)
        if used and self.size > self._size_before and last < page_count(self._kept) and last not in self._written:
            self._written[last] = self.read(PageNo(last))

    def commit(self) -> int:
        """Commits what was written so far, and goes on as the only writer. Returns the LSN.

        The end of the block does this too. Nothing changed makes no LSN. After an error the transaction is over, but
        for FullError: then it can be tried again when there may be room.

        Raises:
            ConflictError: the transaction was fenced, and another commit came; nothing was committed.
            FullError: no room in the nodes' memory, or too much for one commit; nothing was committed.
            OutcomeUnknownError: nobody could be asked whether it is committed.
            UnavailableError: no answer within `commit_timeout`.
        """
        changed = self._changed()
        try:
            lsn = commit_pages(self._open(), changed, self.size)
        except FullError:
            self._begin_again()
            raise
        except BaseException:
            self._end()
            raise
        self._start(lsn, self.size)
        return self.lsn

    def _changed(self) -> dict[int, bytes]:
        """All pages that the commit changes."""
        self._open()
        self._fill_last()
        # Pages that were cut off in between and are inside the size again are zeros now.
        regrown = range(page_count(self._kept), min(page_count(self._size_before), page_count(self.size)))
        if len(regrown) + len(self._written) > COMMIT_PAGES_MAX:
            raise FullError(f"more than {COMMIT_PAGES_MAX} pages in one commit", "commit after the truncation")
        return {**dict.fromkeys(regrown, bytes(PAGE_SIZE)), **self._written}

    def _begin_again(self) -> None:
        """Reserves anew after a commit that did not happen, with all changes, if the state is still the newest."""
        _, lib = _native.load()
        lib.dspm_transaction_release(self._open())
        try:
            self._reserve(self.lsn)
        except BaseException:
            self._end()
            raise


def commit_together(transactions: Sequence[Transaction]) -> list[int]:
    """Commits what several open transactions wrote, in all of their datasets or in none, whatever dies.

    All go on as the only writers, and the ends of their blocks have nothing left to commit. Returns the LSNs in the
    same order. Who reads several datasets may see the commit in one a moment before another. After an error all of
    these transactions are over, but for FullError: then it can be tried again when there may be room.

        with a.transaction() as from_, b.transaction() as to:
            ...
            commit_together([from_, to])

    Args:
        transactions: of different datasets of one cluster, at most 129. Writers that take the same datasets should
            begin their transactions in the same order, or they wait for each other until one gives up.

    Raises:
        ConflictError: one was fenced, and another commit came; nothing was committed in any.
        FullError: no room in the nodes' memory, or too much for one commit; nothing was committed in any.
        OutcomeUnknownError: nobody could be asked whether it is committed.
        UnavailableError: no answer within `commit_timeout`; nothing was committed in any.
        UsageError: a transaction twice or over, or datasets of two clusters.
    """
    if not transactions:
        return []
    parts = [(t._open(), t._changed(), t.size) for t in transactions]
    try:
        lsns = commit_parts(parts)
    except FullError:
        for t in transactions:
            t._begin_again()
        raise
    except BaseException:
        for t in transactions:
            t._end()
        raise
    for t, lsn in zip(transactions, lsns, strict=True):
        t._start(lsn, t.size)
    return lsns
