"""An arena as a whole: header, table, slots, rings, and every page that means something (docs/formats/arena.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dspm.formats import record as records
from dspm.formats import ring as rings
from dspm.formats.arena import Arena, Frame
from dspm.formats.files import checksum, hexadecimal
from dspm.formats.layout import PAGE, Payload, Rebased
from dspm.formats.report import Report
from dspm.formats.ring import RecordId, Ring
from dspm.formats.slots import Slot


@dataclass(slots=True)
class Group:
    """A group in memory. `frames` are its published pages."""

    slot: Slot
    ring: Ring
    frames: list[Frame] = field(default_factory=list)

    @property
    def flushed(self) -> int:
        """Up to which LSN the synced log has it; directly behind a cut the slot may still say more."""
        return self.ring.base.lsn if self.cut_short else min(self.slot.flushed, self.ring.tail.lsn)

    @property
    def cut_short(self) -> bool:
        """A crash came between the ring's rebase and the slot: recovery finishes it."""
        at = self.ring.rebased_at
        return at is not None and (at != self.slot.head or self.slot.rebased == Rebased.NEVER)

    @property
    def lacks(self) -> RecordId | None:
        """The record behind which the group begins, while its base is still to come."""
        if self.cut_short:
            return self.ring.base
        return RecordId(*self.slot.rebased_to) if self.slot.rebased == Rebased.LACKS else None

    @property
    def forgotten(self) -> int:
        """Pages at or below this LSN are of before a rebase."""
        return self.ring.base.lsn if self.cut_short else self.slot.rebased_to[1]


def check_group(arena: Arena, slot: Slot, report: Report) -> Group:
    """Reads a group and checks everything that its parts say of each other."""
    group = Group(slot, rings.read(arena, slot, report))
    # A ring that is damaged does not tell its tail: then every page is checked, and none is missed.
    tail = group.ring.tail.lsn if group.ring.intact else None
    taken = records.taken_back(group.ring.chain)
    for frame in arena.pages.get(slot.group, []):
        if tail is not None and frame.lsn > tail:
            report.counts["arena pages never published"] += 1
            continue
        if tail is not None and frame.lsn <= group.forgotten:
            report.counts["arena pages forgotten"] += 1
            continue
        if tail is not None and frame.lsn in taken:
            report.counts["arena pages taken back"] += 1
            continue
        group.frames.append(frame)
        _check_content(arena, slot, frame, report)
    if group.ring.intact:
        if not group.cut_short:
            _check_slot(arena, group, report)
        _check_records(arena, group, report)
    return group


def _check_content(arena: Arena, slot: Slot, frame: Frame, report: Report) -> None:
    found = checksum(arena.frame(frame.number))
    if found != frame.checksum:
        kind = "clean" if frame.lsn <= slot.flushed else "dirty"
        what = f"{kind} page in frame {frame.number} ({_name(frame)} of group {hexadecimal(slot.group)})"
        report.problem(arena.path, frame.number * PAGE, what, hexadecimal(frame.checksum), hexadecimal(found))


def _check_slot(arena: Arena, group: Group, report: Report) -> None:
    slot, tail = group.slot, group.ring.tail.lsn
    what = f"slot of group {hexadecimal(slot.group)}"
    if slot.committed > tail:
        report.problem(arena.path, slot.at + 40, f"{what}: committed", f"at most the tail, LSN {tail}", slot.committed)
    if slot.flushed > tail and not group.ring.behind_cut:
        report.problem(arena.path, slot.at + 48, f"{what}: flushed", f"at most the tail, LSN {tail}", slot.flushed)
    if slot.committed < group.ring.base.lsn:
        wanted = f"at least the ring's base, LSN {group.ring.base.lsn}"
        report.problem(arena.path, slot.at + 40, f"{what}: committed", wanted, slot.committed)
    if slot.horizon > tail and not group.ring.behind_cut:
        report.problem(arena.path, slot.at + 56, f"{what}: horizon", f"at most the tail, LSN {tail}", slot.horizon)


def _check_records(arena: Arena, group: Group, report: Report) -> None:
    """Pages above the base belong to records; pages of records above the horizon have their frames."""
    named: dict[tuple[int, int, int], tuple[int, int]] = {}
    taken = records.taken_back(group.ring.chain)
    for record in group.ring.chain:
        if record.lsn in taken:
            continue
        for page in record.pages():
            if page.payload != Payload.ZERO:
                key = (record.lsn, record.datasets[page.dataset].id, page.number)
                named[key] = (record.generation, page.checksum)
    here = set()
    for frame in group.frames:
        key = (frame.lsn, frame.dataset, frame.page)
        here.add(key)
        if frame.lsn > group.ring.base.lsn and named.get(key) != (frame.generation, frame.checksum):
            what = f"table entry of frame {frame.number}: {_name(frame)}"
            wanted = _version(named[key]) if key in named else f"a record {frame.lsn} that names the page"
            found = _version((frame.generation, frame.checksum))
            report.problem(arena.path, arena.entry_at(frame.number), what, wanted, found)
    for lsn, dataset, number in sorted(named.keys() - here):
        if lsn > group.slot.horizon or group.cut_short:
            what = f"group {hexadecimal(group.slot.group)}"
            wanted = (
                f"a frame of page {number} of dataset {hexadecimal(dataset)} at LSN {lsn}, which is above the horizon"
            )
            report.problem(arena.path, None, what, wanted, "none")


def _name(frame: Frame) -> str:
    return f"page {frame.page} of dataset {hexadecimal(frame.dataset)} at LSN {frame.lsn}"


def _version(version: tuple[int, int]) -> str:
    return f"generation {version[0]}, checksum {hexadecimal(version[1])}"
