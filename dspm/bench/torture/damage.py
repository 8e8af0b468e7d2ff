"""Bits that flip in a running node's memory and base files, in clean data of which another member has a copy.

What the node itself has not replaced when the fault is over is flipped back: a second fault may then take the other
copy away without losing both.
"""

from __future__ import annotations

import mmap
import os
import random
from dataclasses import dataclass
from pathlib import Path

from dspm.formats import arena as arenas
from dspm.formats.files import checksum
from dspm.formats.layout import ENTRIES_AT, ENTRY, FRAME, PAGE
from dspm.formats.report import Report


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of a file. `page` is where its 4 KiB begin; `before`, their checksum before."""

    path: Path
    page: int
    bit: int
    what: str
    before: int

    def undo(self) -> bool:
        """Flips it back if it is still there; False if what was damaged has been replaced."""
        with open(self.path, "r+b", 0) as f:
            raw = bytearray(os.pread(f.fileno(), PAGE, self.page).ljust(PAGE, b"\0"))
            raw[self.bit // 8] ^= 1 << self.bit % 8
            if checksum(bytes(raw)) != self.before:
                return False
            os.pwrite(f.fileno(), raw[self.bit // 8 : self.bit // 8 + 1], self.page + self.bit // 8)
        return True


def in_arena(path: Path, group: int, flushed: int, chance: random.Random) -> Flip | None:
    """A bit of a page's newest version, where that is on the node's disk, too; None if there is none."""
    arena = arenas.read(path, Report())
    if arena is None:
        return None
    newest = {f.page: f for f in sorted(arena.pages.get(group, []), key=lambda f: f.lsn)}
    clean = [f for f in newest.values() if f.lsn <= flushed]
    if not clean:
        return None
    frame = chance.choice(clean)
    bit = chance.randrange(PAGE * 8)
    entry = arena.entry_at(frame.number)
    with open(path, "r+b", 0) as f, mmap.mmap(f.fileno(), 0) as memory:
        at = frame.number * PAGE
        is_there = (frame.lsn, frame.checksum)
        if FRAME.unpack_from(memory, entry)[4:6] != is_there:
            return None  # used for something else meanwhile
        memory[at + bit // 8] ^= 1 << bit % 8
        if FRAME.unpack_from(memory, entry)[4:6] != is_there:
            memory[at + bit // 8] ^= 1 << bit % 8
            return None
    return Flip(path, at, bit, f"page {frame.page} at {frame.lsn}", frame.checksum)


def in_base(path: Path, chance: random.Random) -> Flip | None:
    """A bit of a page of a base file; None if it holds none."""
    try:
        entries = path.with_suffix(".idx").read_bytes()[ENTRIES_AT:]
    except OSError:
        return None
    whole = entries[: len(entries) // ENTRY.size * ENTRY.size]
    written = [page for page, (lsn, _) in enumerate(ENTRY.iter_unpack(whole)) if lsn]
    if not written:
        return None
    page, bit = chance.choice(written), chance.randrange(PAGE * 8)
    with open(path, "r+b", 0) as f:
        raw = os.pread(f.fileno(), PAGE, page * PAGE)
        if len(raw) < PAGE:
            return None
        os.pwrite(f.fileno(), bytes([raw[bit // 8] ^ 1 << bit % 8]), page * PAGE + bit // 8)
    return Flip(path, page * PAGE, bit, f"page {page} of the base file", checksum(raw))
