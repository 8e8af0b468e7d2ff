"""Field values that prove where they came from.

A value is printable text of the field length:

    key : field : run : writer : sequence : generation : pad

The first six name the record, the field, the run (or `load`), the process that wrote it, the number of its operation
and how many read-modify-writes of this run the cell has seen. The pad is a slice of a fixed text, at an offset given
by the CRC-32 of what precedes it. So every byte is derivable, and a reader can tell a damaged, misplaced, stale or
lost value from a good one without being told what to expect.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

LOAD_RUN = "load"
FIELD_LENGTH_MIN = 80
FIELD_LENGTH_MAX = 65536

_PAD_OFFSETS = 1024
_PAD = hashlib.shake_256(b"dspm ycsb pad").hexdigest((_PAD_OFFSETS + FIELD_LENGTH_MAX) // 2)
_PARTS = 7


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who wrote a value: run, writer (a process number), sequence (its operation number) and generation."""

    run: str
    writer: int
    sequence: int
    generation: int


def make_value(key: str, field: int, stamp: Stamp, length: int) -> str:
    """The value of `length` characters, all ASCII."""
    head = f"{key}:{field}:{stamp.run}:{stamp.writer}:{stamp.sequence}:{stamp.generation}:"
    offset = zlib.crc32(head.encode()) % _PAD_OFFSETS
    return head + _PAD[offset : offset + length - len(head)]


def read_stamp(key: str, field: int, value: object, length: int) -> Stamp | None:
    """Who wrote `value`, or None if it is not a whole and sound value of this field of this record."""
    if not isinstance(value, str) or len(value) != length:
        return None
    parts = value.split(":", _PARTS - 1)
    if len(parts) != _PARTS or not all(number.isascii() and number.isdigit() for number in parts[3:6]):
        return None
    stamp = Stamp(parts[2], int(parts[3]), int(parts[4]), int(parts[5]))
    return stamp if make_value(key, field, stamp, length) == value else None


def next_generation(value: object, run: str) -> int:
    """The generation of a read-modify-write by `run` that read `value`: one more, or 1 if another run wrote it."""
    parts = value.split(":", _PARTS - 1) if isinstance(value, str) else []
    if len(parts) == _PARTS and parts[2] == run and parts[5].isdigit():
        return int(parts[5]) + 1
    return 1
