"""A group's ring: its records in memory, and what it remembers of records it no longer keeps (docs/formats/arena.md).

What a ring says is read in one pass over its entries. The records form one chain: each names the hash of the one before
it. Damage ends the reading: what is behind it cannot be placed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dspm.formats import header as headers
from dspm.formats import record as records
from dspm.formats.arena import Arena
from dspm.formats.files import hexadecimal, pages_of
from dspm.formats.header import SIZE, Header
from dspm.formats.layout import (
    NEWEST,
    PAGE,
    PAIR,
    RECORD_ID,
    SESSION,
    STATE,
    STATE_DATASET,
    STATE_NEWEST,
    Kind,
    Part,
    Payload,
)
from dspm.formats.record import Record
from dspm.formats.report import Malformed, Report
from dspm.formats.slots import Slot


class RecordId(NamedTuple):
    """A place in a group's history."""

    generation: int
    lsn: int
    hash: int


EMPTY = RecordId(0, 0, 0)


@dataclass(slots=True)
class Extents:
    """What is known of one dataset besides its pages. Each list is (LSN, value) with rising LSN."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    shrinkings: list[tuple[int, int]] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)

    def cut(self, lsn: int) -> None:
        """Forgets what is above the LSN."""
        for known in (self.sizes, self.shrinkings, self.zeros):
            known[:] = [x for x in known if x[0] <= lsn]

    def take_back(self, lsn: int) -> None:
        """Forgets what one record said."""
        for known in (self.sizes, self.shrinkings, self.zeros):
            known[:] = [x for x in known if x[0] != lsn]


class Entry(NamedTuple):
    """An entry that was read: `position` in the stream, header, metadata."""

    position: int
    header: Header
    meta: bytes


@dataclass(slots=True)
class Ring:
    """A group's stream and what it says. `frames` are those of its parts, the first holding the head."""

    group: int
    head: int
    frames: list[int]
    end: int = 0
    entries: list[Entry] = field(default_factory=list)
    base: RecordId = EMPTY
    chain: list[Record] = field(default_factory=list)
    extents: dict[int, Extents] = field(default_factory=dict)
    sessions: dict[int, int] = field(default_factory=dict)
    behind_cut: bool = False
    rebased_at: int | None = None
    intact: bool = True

    @property
    def tail(self) -> RecordId:
        """The newest record."""
        if not self.chain:
            return self.base
        last = self.chain[-1]
        return RecordId(last.generation, last.lsn, last.hash)

    def place(self, position: int) -> int:
        """Where a position of the stream is in the file."""
        return self.frames[position // PAGE - self.head // PAGE] * PAGE + position % PAGE

    def hash_at(self, lsn: int) -> int | None:
        """The hash of the record with that LSN, if it is kept, or is the base."""
        if lsn == self.base.lsn:
            return self.base.hash
        i = lsn - self.base.lsn - 1
        return self.chain[i].hash if 0 <= i < len(self.chain) else None


def read(arena: Arena, slot: Slot, report: Report) -> Ring:
    """The ring of a group, as far as it is intact."""
    ring = Ring(slot.group, slot.head, _frames(arena, slot, report), end=slot.head)
    position = ring.head
    try:
        for entry in _entries(arena, ring):
            ring.entries.append(entry)
            ring.end = entry.position + SIZE + headers.padded(len(entry.meta))
        reader = _Reader(ring)
        for entry in ring.entries:
            position = entry.position
            reader.take(entry)
        reader.finish()
    except _Broken as broken:
        _report(arena, slot, ring, broken.position, broken.bad, report)
    except Malformed as bad:
        _report(arena, slot, ring, position, bad, report)
    report.counts["arena records"] += len(ring.chain)
    return ring


def _report(arena: Arena, slot: Slot, ring: Ring, position: int, bad: Malformed, report: Report) -> None:
    ring.intact = False
    what = f"ring of group {hexadecimal(ring.group)}, entry at position {position}: {bad.what}"
    in_stream = position + bad.at < ring.head // PAGE * PAGE + len(ring.frames) * PAGE
    at = ring.place(position + bad.at) if in_stream else slot.at
    report.problem(arena.path, at, what, bad.expected, bad.found)


class _Broken(Exception):
    """Bytes at a position of the stream that are no entry."""

    def __init__(self, position: int, bad: Malformed) -> None:
        super().__init__(str(bad))
        self.position = position
        self.bad = bad


def _frames(arena: Arena, slot: Slot, report: Report) -> list[int]:
    """The frames of the parts that count, in order and without a gap."""
    what = f"ring of group {hexadecimal(slot.group)}"
    first = slot.head // PAGE
    parts: dict[int, int] = {}
    for part, number in arena.parts.get(slot.group, []):
        if part < first:
            continue
        if part in parts:
            at = arena.entry_at(number)
            report.problem(arena.path, at, f"{what}, part {part}", f"frame {parts[part]} only", f"frame {number} too")
        parts[part] = number
    frames: list[int] = []
    while first + len(frames) in parts:
        frames.append(parts[first + len(frames)])
    if len(frames) != len(parts):
        gap = first + len(frames)
        left = min(p for p in parts if p > gap)
        report.problem(arena.path, arena.entry_at(parts[left]), what, f"part {gap}", f"none in front of part {left}")
    return frames


def _entries(arena: Arena, ring: Ring) -> Iterator[Entry]:
    stream = b"".join(arena.frame(n) for n in ring.frames)
    start = ring.head // PAGE * PAGE
    position = ring.head
    while position < start + len(stream):
        at = position - start
        if stream[at : at + 8] == bytes(8):
            return
        try:
            header = headers.parse(stream, at)
            _check_place(header, position, arena.header.salt, ring.group)
            meta = headers.metadata(stream, at, header)
        except Malformed as bad:
            raise _Broken(position, bad) from None
        yield Entry(position, header, meta)
        position += SIZE + headers.padded(len(meta))


def _check_place(header: Header, position: int, salt: int, group: int) -> None:
    if header.request != position:
        raise Malformed("position", position, header.request, 16)
    if header.store != salt:
        raise Malformed("salt", hexadecimal(salt), hexadecimal(header.store), 48)
    if header.group != group:
        raise Malformed("group", hexadecimal(group), hexadecimal(header.group), 24)
    kinds = (Kind.COMMIT, Kind.COMPLETE, Kind.RENEW, Kind.REBASE, Kind.CHECKPOINT)
    if header.kind not in kinds or header.flags:
        raise Malformed("kind and flags", "9, 21, 3, 28 or 41, and 0", f"{header.kind} and {header.flags}", 4)


class _Reader:
    """Follows the entries. The last state counts and says what the base is; if the head moved, it is not known before.

    A state in front of it names a base of its time, which may lie far below the records that are still here.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._states_left = sum(e.header.kind == Kind.CHECKPOINT for e in ring.entries)
        self._anchored = ring.head == 0

    def take(self, entry: Entry) -> None:
        header, meta = entry.header, entry.meta
        if header.kind == Kind.COMMIT:
            self._record(records.parse(header, meta))
        elif header.kind == Kind.COMPLETE:
            self._cut(header.lsn)
        elif header.kind == Kind.CHECKPOINT:
            self._state(header, meta)
        elif header.kind == Kind.REBASE:
            self._rebase(entry)
        elif len(meta) != SESSION.size:
            raise Malformed("metadata of a session", f"{SESSION.size} bytes", len(meta), 8)
        else:
            client, number = SESSION.unpack(meta)
            self._ring.sessions[client] = number

    def finish(self) -> None:
        """At the end of the stream."""
        if not self._anchored:
            raise Malformed("ring with a head", "a state", "none")

    def _record(self, record: Record) -> None:
        ring = self._ring
        if ring.chain or self._anchored:
            if record.lsn != ring.tail.lsn + 1:
                raise Malformed("LSN", ring.tail.lsn + 1, record.lsn, 40)
            if record.predecessor != ring.tail.hash:
                raise Malformed("predecessor", hexadecimal(ring.tail.hash), hexadecimal(record.predecessor), SIZE + 40)
        if record.part == Part.ABORTS:
            self._take_back(record)
        ring.chain.append(record)
        ring.behind_cut = False
        learn(ring.extents, record)

    def _cut(self, lsn: int) -> None:
        ring = self._ring
        if self._anchored and lsn < ring.base.lsn:
            raise Malformed("cut", f"to LSN {ring.base.lsn} or more", lsn, 40)
        ring.chain = [r for r in ring.chain if r.lsn <= lsn]
        ring.behind_cut = True
        for known in ring.extents.values():
            known.cut(lsn)

    def _take_back(self, record: Record) -> None:
        """The record aborts the one before it: what that one said is as if it had never been."""
        ring, lsn = self._ring, record.lsn - 1
        if ring.chain and ring.chain[-1].part != Part.PREPARED:
            raise Malformed("a record that aborts", "a prepared record before it", ring.chain[-1].part.name, SIZE + 76)
        for known in ring.extents.values():
            known.take_back(lsn)
        ring.extents = {dataset: known for dataset, known in ring.extents.items() if known.sizes}

    def _rebase(self, entry: Entry) -> None:
        state = _state_of(entry.header, entry.meta)
        if state.extents or state.newest or state.tail != state.base:
            found = f"{len(state.extents)}, {len(state.newest)} and {state.tail}"
            raise Malformed("rebase", f"no datasets, no newest records, and the tail {state.base}", found, SIZE)
        ring = self._ring
        ring.chain, ring.extents, ring.sessions, ring.base = [], {}, state.sessions, state.base
        ring.behind_cut, ring.rebased_at, self._anchored = False, entry.position, True

    def _state(self, header: Header, meta: bytes) -> None:
        ring = self._ring
        state = _state_of(header, meta)
        base, tail = state.base, state.tail
        self._states_left -= 1
        if self._states_left == 0:
            self._check_joint(base)
            ring.chain = [r for r in ring.chain if r.lsn > base.lsn]
            ring.base, ring.extents, ring.sessions = base, state.extents, state.sessions
            self._anchored = True
        if (ring.chain or self._anchored) and ring.tail != tail:
            raise Malformed("tail of a state", f"the newest record, {ring.tail}", tail, SIZE + RECORD_ID.size)
        self._check_newest(state)

    def _check_newest(self, state: _State) -> None:
        """Newest records are of known sessions, and those that are still in the ring are the records of their LSN."""
        chain = {r.lsn: r.hash for r in self._ring.chain}
        chain |= dict.fromkeys(records.taken_back(self._ring.chain), 0)  # of such a process it says: none there
        for n, (client, found) in enumerate(state.newest.items()):
            at = SIZE + state.newest_at + NEWEST.size * n
            if client not in state.sessions:
                raise Malformed("client of a newest record", "one of the sessions'", hexadecimal(client), at)
            if found.lsn > state.tail.lsn:
                raise Malformed("LSN of a newest record", f"at most {state.tail.lsn}", found.lsn, at + 16)
            if chain.get(found.lsn, found.hash) != found.hash:
                raise Malformed(
                    "hash of a newest record", hexadecimal(chain[found.lsn]), hexadecimal(found.hash), at + 24
                )

    def _check_joint(self, base: RecordId) -> None:
        """What was read so far and the base are one history."""
        chain = self._ring.chain
        for record in chain:
            if record.lsn == base.lsn and record.hash != base.hash:
                raise Malformed("base of a state", hexadecimal(record.hash), hexadecimal(base.hash), SIZE + 16)
            if record.lsn == base.lsn + 1 and record.predecessor != base.hash:
                raise Malformed("base of a state", hexadecimal(record.predecessor), hexadecimal(base.hash), SIZE + 16)
        if chain and chain[0].lsn > base.lsn + 1:
            raise Malformed("base of a state", f"LSN {chain[0].lsn - 1} or more", base.lsn, SIZE + 8)


@dataclass(slots=True)
class _State:
    base: RecordId
    tail: RecordId
    extents: dict[int, Extents]
    sessions: dict[int, int]
    newest: dict[int, RecordId]
    newest_at: int


def _state_of(header: Header, meta: bytes) -> _State:
    """The state of an entry, which its header names the base of."""
    state = _parse_state(meta)
    base, found = state.base, (header.generation, header.lsn)
    if found != (base.generation, base.lsn):
        raise Malformed("generation and LSN of a state", f"its base's, {base[:2]}", found, 32)
    return state


def _parse_state(meta: bytes) -> _State:
    if len(meta) < STATE.size:
        raise Malformed("metadata of a state", f"at least {STATE.size} bytes", len(meta), 8)
    *ids, datasets, sessions = STATE.unpack_from(meta)
    at = STATE.size
    extents: dict[int, Extents] = {}
    for _ in range(datasets):
        if len(meta) < at + STATE_DATASET.size:
            raise Malformed("datasets of a state", datasets, f"{len(extents)} until the end", SIZE + 48)
        dataset, _, s, t, z, _ = STATE_DATASET.unpack_from(meta, at)
        at += STATE_DATASET.size
        bounds = [at + PAIR.size * n for n in (0, s, s + t, s + t + z)]
        if len(meta) < bounds[3]:
            raise Malformed("lists of a state", f"{bounds[3]} bytes", len(meta), SIZE + at)
        lists = [[(a, b) for a, b in PAIR.iter_unpack(meta[x:y])] for x, y in zip(bounds, bounds[1:], strict=False)]
        extents[dataset] = Extents(*lists)
        at = bounds[3]
    newest_at = at + SESSION.size * sessions + STATE_NEWEST.size
    if len(meta) < newest_at:
        raise Malformed("metadata of a state", f"at least {newest_at} bytes", len(meta), 8)
    numbers = {client: number for client, number in SESSION.iter_unpack(meta[at : newest_at - STATE_NEWEST.size])}
    count, _ = STATE_NEWEST.unpack_from(meta, newest_at - STATE_NEWEST.size)
    if len(meta) != newest_at + NEWEST.size * count:
        raise Malformed("metadata of a state", f"{newest_at + NEWEST.size * count} bytes", len(meta), 8)
    newest = {client: RecordId(*of) for client, *of, _ in NEWEST.iter_unpack(meta[newest_at:])}
    base, tail = (RecordId(*r) for r in RECORD_ID.iter_unpack(meta[: 2 * RECORD_ID.size]))
    return _State(base, tail, extents, numbers, newest, newest_at)


def learn(extents: dict[int, Extents], record: Record) -> None:
    """What a record says of its datasets' sizes, of what they lost, and of pages that are zeros now."""
    for dataset in record.datasets:
        known = extents.setdefault(dataset.id, Extents())
        before = known.sizes[-1][1] if known.sizes else 0
        if dataset.size < before:
            known.shrinkings.append((record.lsn, pages_of(dataset.size)))
        if dataset.size != before:
            known.sizes.append((record.lsn, dataset.size))
    for page in record.pages():
        if page.payload == Payload.ZERO:
            extents[record.datasets[page.dataset].id].zeros.append((record.lsn, page.number))
