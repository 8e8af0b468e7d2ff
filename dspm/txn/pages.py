"""Pages: the unit of reading and writing."""

from __future__ import annotations

from typing import NewType

PageNo = NewType("PageNo", int)
"""Number of a page in its dataset, from 0."""

PAGE_SIZE = 4096
"""Bytes of a page."""

COMMIT_PAGES_MAX = (1 << 30) // PAGE_SIZE
"""Most pages that one commit changes; the memory of the smallest member usually allows fewer."""

PAGES_MAX = 1 << 51
"""Most pages of a dataset: its size in bytes fits 63 bits."""


def page_count(size: int) -> int:
    """Pages that `size` bytes take; the last may be partly used."""
    return -(-size // PAGE_SIZE)
