"""One flipped bit, anywhere in a node's files: in a live place fsck finds and names it, in dead space it says nothing.

Which places are live is computed from the reader's own view of the files, so that a place that the reader does not look
at shows as a flip that nobody found. The files are those of a real cluster that was stopped after checkpoints, folded
rings and deleted pages. Guards against: a checksum that is not verified, a cross-check that does not reach a part, a
problem that names the wrong place.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from system.cluster import Cluster

from dspm.formats import arena as arenas
from dspm.formats import layout, memory, slots
from dspm.formats.arena import Arena
from dspm.formats.datadir import DataDir
from dspm.formats.disk import Disk
from dspm.formats.files import pages_of
from dspm.formats.fsck import check
from dspm.formats.report import Finding, Report

PAGE = layout.PAGE
FLIPS = 12


class Place(NamedTuple):
    """A range of bytes, and the parts of files in which a problem may be named when one of them is wrong."""

    file: Path
    start: int
    end: int
    named: tuple[tuple[Path, int, int], ...]


Places = dict[str, list[Place]]


def live(file: Path, start: int, end: int, *also: tuple[Path, int, int]) -> Place:
    return Place(file, start, end, ((file, start, end), *also))


def dead(file: Path, start: int, end: int) -> Place:
    return Place(file, start, end, ())


class Node(NamedTuple):
    data: Path
    arena: Path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A stopped node with everything in its files: checkpoints, a folded ring, records behind the checkpoint."""
    cluster = Cluster(tmp_path_factory.mktemp("damage") / "c", 2, {"memory": "16MiB", "durability": "disk"})
    try:
        cluster.up()
        write(cluster.config)
        cluster.down()
        found = Node(Path(cluster.info["nodes"][0]["data_dir"]), cluster.arena("n1"))
        clean = check(found.data, found.arena)
        assert clean.sound and not clean.notes, [*clean.problems, *clean.notes]
        yield found
    finally:
        cluster.end()


def write(config: str) -> None:
    import dspm

    db = dspm.connect(f"file:damage.db?config={config}")
    db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)")
    for i in range(600):
        with db:
            db.execute("INSERT INTO t(v) VALUES (randomblob(?))", (i * 37 % 9000,))
            db.execute("DELETE FROM t WHERE k > 60 AND k % 7 = ? AND k < ?", (i % 7, i - 100))
        if i == 150:
            db.execute("VACUUM")
    db.close()


@pytest.fixture(scope="module")
def places(node: Node) -> tuple[Places, Places]:
    """Live and dead places by kind."""
    report = Report()
    alive: Places = {}
    unused: Places = {}
    arena = arenas.read(node.arena, report)
    assert arena is not None
    map_arena(arena, report, alive, unused)
    map_disk(Disk(DataDir(node.data), report), report, alive, unused)
    identity = node.data / "node"
    alive["identity"] = [live(identity, 0, identity.stat().st_size)]
    assert report.sound
    return alive, unused


def map_arena(arena: Arena, report: Report, alive: Places, unused: Places) -> None:
    file = arena.path
    alive["arena header"] = [
        live(file, at, at + (layout.ARENA.size if arena.memory[at] else 8)) for at in (0, layout.ARENA_COPY)
    ]
    alive["mark of a failed log"] = [live(file, layout.ARENA_SUSPECT, layout.ARENA_SUSPECT + 8)]
    unused["arena header"] = [dead(file, 96, 128), dead(file, 224, 256), dead(file, 264, PAGE)]
    frames = range(arena.header.first, arena.header.first + arena.header.frames)
    state = {n: bytes(arena.memory[arena.entry_at(n) + 56 : arena.entry_at(n) + 60]) for n in frames}
    entries = {n: arena.entry_at(n) for n in frames}
    alive["table entry"] = [live(file, at, at + 64) for n, at in entries.items() if state[n] != layout.FREE]
    alive["state of a free frame"] = [
        Place(file, at + 56, at + 60, ((file, at, at + 64),)) for n, at in entries.items() if state[n] == layout.FREE
    ]
    unused["table entry"] = [dead(file, at, at + 56) for n, at in entries.items() if state[n] == layout.FREE]
    unused["free frame"] = [dead(file, n * PAGE, (n + 1) * PAGE) for n in frames if state[n] == layout.FREE]
    map_slots(arena, alive, unused)
    groups = [memory.check_group(arena, slot, report) for slot in slots.read(arena, report).values()]
    alive["page"] = [live(file, f.number * PAGE, (f.number + 1) * PAGE) for g in groups for f in g.frames]
    alive["ring"], unused["ring"] = [], []
    for group in groups:
        ring = group.ring
        parts = tuple((file, n * PAGE, (n + 1) * PAGE) for n in ring.frames)
        assert ring.head > 0 and ring.frames, "the ring did not fold"
        for at in range(ring.head, ring.end + 8, 8):
            alive["ring"].append(Place(file, ring.place(at), ring.place(at) + 8, parts))
        behind = range(ring.end + 8, ring.end // PAGE * PAGE + PAGE, 8)
        unused["ring"] += [dead(file, ring.place(at), ring.place(at) + 8) for at in behind]
        front = range(ring.head // PAGE * PAGE, ring.head, 8)
        unused["ring"] += [dead(file, ring.place(at), ring.place(at) + 8) for at in front]


def map_slots(arena: Arena, alive: Places, unused: Places) -> None:
    alive["slot"], alive["slot that is not used"], unused["slot"] = [], [], []
    for number in arena.slots:
        for at in range(number * PAGE, (number + 1) * PAGE, layout.SLOT_COPY):
            used = any(arena.memory[at : at + 8])
            end, copy = at + (layout.SLOT.size if used else 8), (arena.path, at, at + layout.SLOT_COPY)
            alive["slot" if used else "slot that is not used"].append(live(arena.path, at, end, copy))
            unused["slot"].append(dead(arena.path, end, at + layout.SLOT_COPY))


def map_disk(disk: Disk, report: Report, alive: Places, unused: Places) -> None:
    batches = list(disk.log.batches(report))
    alive["batch"] = [live(b.segment.path, b.at, b.end) for b in batches[:-1]]
    ends = [b for b, after in itertools.pairwise(batches) if b.segment is not after.segment]
    alive["batch at a segment's end"] = [live(b.segment.path, b.at, b.end) for b in ends]
    alive["last batch"] = [live(b.segment.path, b.at, b.end) for b in batches[-1:]]
    files = list(disk.directory.log.iterdir())
    alive["segment header"] = [live(f, 0, layout.SEGMENT.size) for f in files]
    unused["segment"] = [dead(f, layout.SEGMENT.size, PAGE) for f in files]
    unused["segment"] += [dead(b.segment.path, b.end, -(-b.end // PAGE) * PAGE) for b in batches if b.end % PAGE]
    last = batches[-1]
    unused["segment"] += [dead(last.segment.path, -(-last.end // PAGE) * PAGE, last.segment.size)]
    map_bases(disk, alive, unused)


def map_bases(disk: Disk, alive: Places, unused: Places) -> None:
    for kind in ("sidecar header", "sidecar entry", "base page"):
        alive[kind], unused[kind] = [], []
    for history in disk.histories.values():
        view = disk.view(history, history.tail.lsn)
        for dataset, size in disk.sizes(history).items():
            base = disk.bases[dataset]
            alive["sidecar header"] += [live(base.idx, at, at + layout.SIDECAR.size) for at in (0, layout.SIDECAR_COPY)]
            unused["sidecar header"] += [dead(base.idx, 88, 512), dead(base.idx, 600, PAGE)]
            for page in range(pages_of(size)):
                entry, at = layout.ENTRIES_AT + page * layout.ENTRY.size, page * PAGE
                if view.touches(dataset, page):
                    unused["sidecar entry"].append(dead(base.idx, entry, entry + layout.ENTRY.size))
                    unused["base page"].append(dead(base.db, at, at + PAGE))
                else:
                    # An entry that is wrong does not fit its page, and is reported there.
                    end = entry + layout.ENTRY.size
                    alive["sidecar entry"].append(live(base.idx, entry, end, (base.db, at, at + PAGE)))
                    alive["base page"].append(live(base.db, at, at + PAGE))


def flipped(node: Node, file: Path, bit: int) -> Report:
    """What fsck says with one bit of a file inverted."""
    with open(file, "r+b", buffering=0) as f:
        f.seek(bit // 8)
        before = f.read(1)
        try:
            f.seek(bit // 8)
            f.write(bytes([before[0] ^ 1 << bit % 8]))
            return check(node.data, node.arena)
        finally:
            f.seek(bit // 8)
            f.write(before)


def flips(kind: str, where: list[Place]) -> Iterator[tuple[Place, int, str]]:
    assert where, f"the files hold no {kind}"
    seed = secrets.randbits(32)
    choice = random.Random(seed)
    for _ in range(FLIPS):
        place = choice.choice(where)
        bit = choice.randrange(place.start * 8, place.end * 8)
        yield place, bit, f"{kind}, byte {bit // 8} of {place.file}, bit {bit % 8}, seed {seed}"


def names(found: Finding, place: Place) -> bool:
    return any(
        found.file == str(file) and found.offset is not None and start <= found.offset < end
        for file, start, end in place.named
    )


LIVE = [
    "arena header",
    "mark of a failed log",
    "table entry",
    "state of a free frame",
    "page",
    "slot",
    "slot that is not used",
    "ring",
    "batch",
    "batch at a segment's end",
    "segment header",
    "sidecar header",
    "sidecar entry",
    "base page",
    "identity",
]
DEAD = [
    "arena header",
    "table entry",
    "free frame",
    "slot",
    "ring",
    "segment",
    "sidecar header",
    "sidecar entry",
    "base page",
]


def test_every_kind_is_tried(places: tuple[Places, Places]) -> None:
    assert set(places[0]) == {*LIVE, "last batch"}
    assert set(places[1]) == set(DEAD)


@pytest.mark.parametrize("kind", LIVE)
def test_a_flip_in_a_live_place_is_found_and_named(node: Node, places: tuple[Places, Places], kind: str) -> None:
    for place, bit, what in flips(kind, places[0][kind]):
        report = flipped(node, place.file, bit)
        assert any(names(p, place) for p in report.problems), (what, list(map(str, report.problems)))
    assert check(node.data, node.arena).sound


def test_a_flip_in_the_last_batch_is_damage_to_who_has_the_memory(node: Node, places: tuple[Places, Places]) -> None:
    """Alone the log cannot tell it from a torn tail. A slot that calls a record of it flushed can."""
    for place, bit, what in flips("last batch", places[0]["last batch"]):
        report = flipped(node, place.file, bit)
        assert any(names(p, place) for p in report.problems), (what, list(map(str, report.problems)))
        assert any(names(p, place) and "torn tail" in p.what for p in report.notes), (what, report.notes)


@pytest.mark.parametrize("kind", DEAD)
def test_a_flip_in_dead_space_is_silent(node: Node, places: tuple[Places, Places], kind: str) -> None:
    for place, bit, what in flips(kind, places[1][kind]):
        report = flipped(node, place.file, bit)
        assert not report.problems and not report.notes, (what, list(map(str, [*report.problems, *report.notes])))
