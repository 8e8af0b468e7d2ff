"""A consistent state of a dataset that stays readable until it is released."""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspm import _native
from dspm.errors import UsageError
from dspm.txn.pages import PAGE_SIZE, PAGES_MAX, PageNo, page_count

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BATCH = 256
"""Pages that iterating reads at a time."""


class Snapshot:
    """One state of a dataset; commits that come later do not change it. Made by :meth:`dspm.Dataset.snapshot`.

    `lsn` is the number of its last commit, `size` its size in bytes, `page_count` the pages that these take. What was
    never written, and what lies beyond the size, reads as zeros. Reading may raise TooOldError (the state is no longer
    kept), DataError (no good copy) and UnavailableError (no answer within `commit_timeout`).
    """

    def __init__(self, handle: Any, lsn: int, size: int) -> None:
        self._handle = handle
        self.lsn = lsn
        self.size = size

    @classmethod
    def begin(cls, dataset: Any) -> Snapshot:
        """A snapshot of the library's dataset."""
        return cls.from_call("dspm_snapshot_begin", dataset)

    @classmethod
    def begin_as_of(cls, dataset: Any, time: int | str) -> Snapshot:
        """A snapshot of the library's dataset in the past."""
        return cls.from_call("dspm_snapshot_as_of", dataset, _native.text(str(time)))

    @classmethod
    def from_call(cls, function: str, *arguments: Any) -> Snapshot:
        """The snapshot that a function of dspm.h gives out as lsn, size, handle."""
        ffi, lib = _native.load()
        lsn, size, out = ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("dspm_snapshot **")
        _native.call(function, *arguments, lsn, size, out)
        return cls(ffi.gc(out[0], lib.dspm_snapshot_end), int(lsn[0]), int(size[0]))

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Ends the read; a second time is nothing."""
        # The library's object ends with its last reference, so never under another thread's call.
        self._handle = None

    def _open(self) -> Any:
        if self._handle is None:
            raise UsageError("the snapshot was released", "begin a new one")
        return self._handle

    @property
    def page_count(self) -> int:
        """Pages that the size takes; the last may be partly used."""
        return page_count(self.size)

    def read(self, page: PageNo, count: int = 1) -> bytes:
        """`count` pages from `page` on: count × 4096 bytes."""
        out = bytearray(checked_count(page, count) * PAGE_SIZE)
        self.read_into(out, page)
        return bytes(out)

    def read_into(self, buffer: Buffer, page: PageNo = PageNo(0)) -> None:  # noqa: B008
        """Fills a buffer with the pages from `page` on.

        Args:
            buffer: writable and contiguous, a multiple of 4096 bytes: bytearray, memoryview, mmap, numpy array.
            page: the first page.

        Raises:
            UsageError: the buffer is of another kind or length.
        """
        read_range("dspm_snapshot_read", self._open(), buffer, page)

    def read_many(self, pages: Sequence[PageNo]) -> bytes:
        """Listed pages, in any order, one behind the other: len(pages) × 4096 bytes."""
        ffi, _ = _native.load()
        for page in pages:
            checked_count(page, 1)
        numbers = array.array("Q", pages)
        out = bytearray(len(numbers) * PAGE_SIZE)
        listed = ffi.from_buffer("uint64_t[]", numbers)
        _native.call("dspm_snapshot_read_list", self._open(), listed, len(numbers), ffi.from_buffer("char[]", out))
        return bytes(out)

    def pages(self, first: PageNo = PageNo(0), stop: PageNo | None = None) -> Iterator[tuple[PageNo, bytes]]:  # noqa: B008
        """Pages from `first` up to `stop`, which is not included (otherwise to the end), as (number, 4096 bytes)."""
        end = self.page_count if stop is None else stop
        at = int(first)
        while at < end:
            count = min(_BATCH, end - at)
            content = self.read(PageNo(at), count)
            for i in range(count):
                yield PageNo(at + i), content[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            at += count


def checked_count(page: int, count: int) -> int:
    """The count, if these are pages that a dataset can have."""
    if page < 0 or count < 0 or page + count > PAGES_MAX:
        raise UsageError(f"pages {page} to {page + count}: a dataset has pages 0 to {PAGES_MAX}", _HINT)
    return count


def read_range(function: str, handle: Any, buffer: Buffer, page: PageNo) -> None:
    """Fills a buffer by one of the two functions that read a range."""
    ffi, _ = _native.load()
    try:
        into = ffi.from_buffer("char[]", buffer, require_writable=True)
    except (TypeError, ValueError, BufferError) as e:
        raise UsageError(f"a buffer that cannot be filled: {e}", "use a writable, contiguous one") from None
    if len(into) % PAGE_SIZE:
        raise UsageError(f"a buffer of {len(into)} bytes is not a number of whole pages", _HINT)
    _native.call(function, handle, page, checked_count(page, len(into) // PAGE_SIZE), into)


_HINT = f"a page has {PAGE_SIZE} bytes"
