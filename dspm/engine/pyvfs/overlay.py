"""What a transaction has written so far: whole dataset pages over a state, and the size.

Invariants: a page in the overlay is complete (a partial write read the rest from below first); bytes at or beyond the
size are zeros in it; the state below shows only under `floor`, the smallest size that the transaction had, so that what
was cut off never comes back when the file grows again, neither in a read nor in what is committed.
"""

from __future__ import annotations

from collections.abc import Callable

from dspm.errors import FullError
from dspm.txn.pages import PAGE_SIZE, PageNo, page_count

BYTES_MAX = 1 << 30
"""Most bytes that one transaction may gather in the process's memory."""

Below = Callable[[PageNo], bytes]
"""Reads a page of the state under the overlay."""

_ZEROS = bytes(PAGE_SIZE)


class Overlay:
    """The written pages of one transaction over a state of `size` bytes, whose pages `below` reads."""

    def __init__(self, below: Below, size: int) -> None:
        self._below = below
        self.restart(size)

    def restart(self, size: int) -> None:
        """Begins again over a state of that size."""
        self._pages: dict[int, bytes] = {}
        self.size = self.size_before = self._floor = size

    @property
    def is_written(self) -> bool:
        """True once anything was written or cut, also if the size is the old one again."""
        return bool(self._pages) or self.size != self.size_before or self._floor < self.size_before

    def changed(self) -> dict[int, bytes]:
        """All pages that the commit changes. What was cut off and is inside the size again has become zeros."""
        end = min(page_count(self.size_before), page_count(self.size))
        return dict.fromkeys(range(page_count(self._floor), end), _ZEROS) | self._pages

    def page(self, number: int) -> bytes:
        """One page as the transaction sees it; zeros beyond the size."""
        own = self._pages.get(number)
        if own is not None:
            return own
        there = min(max(self._floor - number * PAGE_SIZE, 0), PAGE_SIZE)
        return self._below(PageNo(number))[:there].ljust(PAGE_SIZE, b"\0") if there else _ZEROS

    def read(self, offset: int, amount: int) -> bytes:
        """Bytes from `offset` on; those beyond the size are zeros."""
        return read_pages(self.page, offset, amount)

    def write(self, offset: int, data: bytes) -> None:
        """Takes bytes in."""
        done = 0
        while done < len(data):
            number, at = divmod(offset + done, PAGE_SIZE)
            part = data[done : done + PAGE_SIZE - at]
            whole = len(part) == PAGE_SIZE
            self._put(number, part if whole else spliced(self.page(number), at, part))
            done += len(part)
        self.size = max(self.size, offset + len(data))

    def truncate(self, size: int) -> None:
        """Sets the size. What lies beyond is gone, also in the last page that is partly left."""
        if size < self.size:
            last, kept = divmod(size, PAGE_SIZE)
            if kept:
                self._put(last, self.page(last)[:kept].ljust(PAGE_SIZE, b"\0"))
            end = page_count(size)
            self._pages = {number: content for number, content in self._pages.items() if number < end}
            self._floor = min(self._floor, size)
        self.size = size

    def _put(self, number: int, content: bytes) -> None:
        if number not in self._pages and (len(self._pages) + 1) * PAGE_SIZE > BYTES_MAX:
            raise FullError(f"the transaction has written more than {BYTES_MAX} bytes", "commit in smaller parts")
        self._pages[number] = content


def read_pages(page: Callable[[PageNo], bytes], offset: int, amount: int) -> bytes:
    """Bytes from `offset` on, cut out of the pages that hold them."""
    first, at = divmod(offset, PAGE_SIZE)
    content = b"".join(page(PageNo(n)) for n in range(first, page_count(offset + amount)))
    return content[at : at + amount]


def spliced(content: bytes, at: int, part: bytes) -> bytes:
    """`content` with `part` in place of as many bytes from `at` on."""
    return content[:at] + part + content[at + len(part) :]
