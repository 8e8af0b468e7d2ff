"""Slots: what a group's memory says in one place that changes at once (docs/formats/arena.md)."""

from __future__ import annotations

from dataclasses import dataclass

from dspm.formats.arena import Arena
from dspm.formats.files import checksum, expect
from dspm.formats.layout import PAGE, SLOT, SLOT_COPY, SLOT_SIZE, WORD, Rebased
from dspm.formats.report import Malformed, Report


@dataclass(frozen=True, slots=True)
class Slot:
    """The copy of a slot that counts; `at` is its place in the file."""

    at: int
    sequence: int
    group: int
    generation: int
    token: tuple[int, int, int]
    committed: int
    flushed: int
    horizon: int
    head: int
    rebased: Rebased
    rebased_to: tuple[int, int, int]


def read(arena: Arena, report: Report) -> dict[int, Slot]:
    """The slot of each group."""
    found: dict[int, Slot] = {}
    for number in arena.slots:
        for at in range(number * PAGE, (number + 1) * PAGE, SLOT_SIZE):
            slot = _read_slot(arena, at, report)
            if slot is None:
                continue
            if slot.group in found:
                what = f"slot of group {slot.group:#018x}"
                report.problem(arena.path, at, what, f"the one at byte {found[slot.group].at} only", "another one")
            found[slot.group] = slot
    report.counts["arena groups"] = len(found)
    return found


def _read_slot(arena: Arena, at: int, report: Report) -> Slot | None:
    copies = []
    for place in (at, at + SLOT_COPY):
        if WORD.unpack_from(arena.memory, place)[0] == 0:
            continue
        try:
            copies.append(_copy(arena.memory[place : place + SLOT.size], place))
        except Malformed as bad:
            report.malformed(arena.path, place, bad, "copy of a slot")
    return max(copies, key=lambda c: c.sequence, default=None)


def _copy(raw: memoryview, at: int) -> Slot:
    sequence, group, fence, generation, boot, n, committed, flushed, horizon, head, *rebased, summed = SLOT.unpack(raw)
    expect("checksum", checksum(raw[:-8]), summed, SLOT.size - 8)
    state, *to = rebased
    if state not in list(Rebased) or (state == Rebased.NEVER and any(to)):
        raise Malformed("state of a rebase", "0 and zeros, or 1, or 2", rebased, 72)
    token = (generation, boot, n)
    of = (Rebased(state), (to[0], to[1], to[2]))
    return Slot(at, sequence, group, fence, token, committed, flushed, horizon, head, *of)
