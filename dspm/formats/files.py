"""Bytes of files, and their checksums.

Memory (an arena on tmpfs) is mapped. Files on disks are read: a block that the disk cannot read is an error of that
read, where a mapping would end the process.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TypeAlias

import xxhash

from dspm.formats.layout import PAGE
from dspm.formats.report import Malformed

Bytes: TypeAlias = bytes | memoryview

checksum = xxhash.xxh3_64_intdigest
ZERO_PAGE = bytes(PAGE)
ZERO_SUM = checksum(ZERO_PAGE)


def low_half(data: Bytes) -> int:
    """The checksum modulo 2³²."""
    return checksum(data) & 0xFFFF_FFFF


def hexadecimal(number: int) -> str:
    """An id or a checksum, as all messages show it."""
    return f"{number:#018x}"


def expect(what: str, expected: int, found: int, at: int = 0) -> None:
    """Two checksums or ids are the same, or the bytes are malformed."""
    if expected != found:
        raise Malformed(what, hexadecimal(expected), hexadecimal(found), at)


def pages_of(size: int) -> int:
    """How many pages hold that many bytes."""
    return -(-size // PAGE)


def map_memory(path: Path) -> memoryview:
    """A file of memory, mapped read-only; empty if the file is."""
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """That many bytes, fewer at the end of the file only."""
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
