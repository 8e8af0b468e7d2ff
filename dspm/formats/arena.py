"""The arena's header and frame table (docs/formats/arena.md): which frame holds what.

A damaged entry of the table is a problem and counts for nothing else. The contents of frames are checked by who knows
which of them mean something (fsck): a page above its group's tail was never published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dspm.formats.files import checksum, expect, low_half, map_memory
from dspm.formats.layout import (
    ARENA,
    ARENA_COPY,
    ARENA_MAGIC,
    ARENA_SUSPECT,
    FRAME,
    FRAME_SUMMED,
    FREE,
    PAGE,
    PAGES,
    RING,
    SLOTS,
    VERSION,
    WORD,
)
from dspm.formats.report import Malformed, Report


@dataclass(frozen=True, slots=True)
class ArenaHeader:
    """The header that counts."""

    sequence: int
    size: int
    first: int
    frames: int
    store: int
    salt: int
    boot: bytes


class Frame(NamedTuple):
    """A page in memory."""

    number: int
    dataset: int
    page: int
    generation: int
    lsn: int
    checksum: int


@dataclass(slots=True)
class Arena:
    """A mapped arena and what its table says."""

    path: Path
    memory: memoryview
    header: ArenaHeader
    suspect: bool = False
    pages: dict[int, list[Frame]] = field(default_factory=dict)
    parts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    slots: list[int] = field(default_factory=list)

    def frame(self, number: int) -> memoryview:
        """The content of a frame."""
        return self.memory[number * PAGE : (number + 1) * PAGE]

    def entry_at(self, number: int) -> int:
        """Where the table's entry of a frame stands in the file."""
        return PAGE + (number - self.header.first) * FRAME.size


def read(path: Path, report: Report) -> Arena | None:
    """Header and table; None when there is no header that counts."""
    memory = map_memory(path)
    header = _read_header(memory, path, report)
    if header is None:
        return None
    arena = Arena(path, memory, header)
    _read_suspect(arena, report)
    _read_table(arena, report)
    return arena


def _read_header(memory: memoryview, path: Path, report: Report) -> ArenaHeader | None:
    if len(memory) < PAGE:
        report.problem(path, None, "arena", f"at least {PAGE} bytes", len(memory))
        return None
    found = []
    damaged = False
    for copy in (0, 1):
        at = copy * ARENA_COPY
        if memory[at : at + 8] == bytes(8):
            continue
        try:
            found.append(_header_copy(memory[at : at + ARENA.size], len(memory)))
        except Malformed as bad:
            damaged = True
            report.malformed(path, at, bad)
    if found:
        return max(found, key=lambda h: h.sequence)
    if not damaged:
        report.problem(path, 0, "header of the arena", "a copy at 0 or 128", "none")
    return None


def _header_copy(raw: memoryview, length: int) -> ArenaHeader:
    magic, version, _, sequence, size, first, frames, store, salt, boot, _, summed = ARENA.unpack(raw)
    if magic != ARENA_MAGIC or version != VERSION:
        raise Malformed("header of the arena", f"magic DSPMAREN, version {VERSION}", bytes(raw[:12]).hex(" "))
    expect("checksum of the arena's header", checksum(raw[:-8]), summed, ARENA.size - 8)
    if size > length:
        raise Malformed("bytes of the arena", f"at most the file's {length}", size, 24)
    total = size // PAGE
    table = -(-(total - 1) // 65)
    wanted = (1 + table, min(total - 1 - table, 64 * table))
    if (first, frames) != wanted:
        raise Malformed("first frame and number of frames", wanted, (first, frames), 32)
    return ArenaHeader(sequence, size, first, frames, store, salt, boot)


def _read_suspect(arena: Arena, report: Report) -> None:
    (mark,) = WORD.unpack_from(arena.memory, ARENA_SUSPECT)
    arena.suspect = mark != 0
    if mark == 1:
        report.problem(arena.path, ARENA_SUSPECT, "mark of a failed log", 0, "1: the disk log failed under this memory")
    elif mark:
        report.problem(arena.path, ARENA_SUSPECT, "mark of a failed log", "0 or 1", mark)


def _read_table(arena: Arena, report: Report) -> None:
    header = arena.header
    table = arena.memory[PAGE : PAGE + header.frames * FRAME.size]
    free = 0
    for number, entry in enumerate(FRAME.iter_unpack(table), header.first):
        state = entry[8]
        if state == FREE:
            free += 1
            continue
        at = arena.entry_at(number)
        try:
            _check_entry(arena.memory[at : at + FRAME_SUMMED], number, entry)
        except Malformed as bad:
            report.malformed(arena.path, at, bad, f"table entry of frame {number}")
            continue
        _take(arena, number, entry)
    report.counts["arena frames"] = header.frames
    report.counts["arena frames free"] = free
    report.counts["arena pages"] = sum(map(len, arena.pages.values()))
    report.counts["arena ring parts"] = sum(map(len, arena.parts.values()))


def _check_entry(summed: memoryview, number: int, entry: tuple[object, ...]) -> None:
    own, again, state, zero = entry[6:10]
    if state != again:
        raise Malformed("state", f"the same word twice, {again!r}", repr(state), 56)
    if state not in (PAGES, RING, SLOTS):
        raise Malformed("state", "0, PAGE, RING or SLOT", repr(state), 56)
    if zero != 0:
        raise Malformed("last 4 bytes", 0, zero, 60)
    wanted = low_half(summed) ^ number
    if own != wanted:
        raise Malformed("checksum", f"{wanted:#010x}", f"{own:#010x}", FRAME_SUMMED)


def _take(arena: Arena, number: int, entry: tuple[int, ...]) -> None:
    group, dataset, page, generation, lsn, summed = entry[:6]
    state: object = entry[8]
    if state == PAGES:
        arena.pages.setdefault(group, []).append(Frame(number, dataset, page, generation, lsn, summed))
    elif state == SLOTS:
        arena.slots.append(number)
    else:
        arena.parts.setdefault(group, []).append((page, number))
