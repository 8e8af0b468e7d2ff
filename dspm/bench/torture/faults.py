"""The faults: what each kind does, to whom, and how it is undone.

Fault model: processes crash, stop and go on; the memory of one machine is lost; links fail, one way too; a disk fills
up; bits of clean data flip on one node. Never is more taken away than the copies cover: what takes a copy's content
begins and ends when all sets are whole (the runner waits). Processes that are killed keep their memories: all members
may be killed at once, and one while another is still joining. A power cut of all members is another test.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dspm.bench.torture import damage, disks
from dspm.bench.torture.clients import DATABASES, Clients, Database, Seat
from dspm.bench.torture.rig import Rig
from dspm.netram.netns import REGISTRY

HOLD_S = (0.2, 1.2)
LONG_HOLD_S = (2.0, 4.0)
LONG = 0.1
"""How often a fault lasts long."""
HURRY = 0.3
"""How often one that takes no memory away does not wait until all is whole after another such one."""
SCAN_S = 15.0
_REFILL_S = 0.05


@dataclass(frozen=True)
class Choice:
    """Everything that chance decides about a fault, before anything is known of the cluster."""

    kind: str
    database: Database
    seat: int
    node: int
    other: int
    back: bool
    hurry: bool
    hold_s: float
    seed: int


def choose(chance: random.Random, kinds: list[str]) -> Choice:
    """The next fault. The same sequence for the same seed."""
    return Choice(
        kind=chance.choice(kinds),
        database=chance.choice(DATABASES),
        seat=chance.randrange(1 << 16),
        node=chance.randrange(1 << 16),
        other=chance.randrange(1 << 16),
        back=chance.random() < 0.5,
        hurry=chance.random() < HURRY,
        hold_s=chance.uniform(*(LONG_HOLD_S if chance.random() < LONG else HOLD_S)),
        seed=chance.randrange(1 << 32),
    )


class Faults:
    """Does them. Each method does its harm, yields whom it met, and makes good when it is resumed."""

    def __init__(self, rig: Rig, clients: Clients) -> None:
        self._rig = rig
        self._clients = clients
        self.flips: Counter[str] = Counter()
        """What became of flipped bits: whether the node noticed, and who made it good."""
        self._do: dict[str, Callable[[Choice], Iterator[str]]] = {
            "node-kill": lambda c: self._kill(self._node(c)),
            "node-stop": lambda c: self._stop(self._node(c)),
            "node-memory-lost": lambda c: self._lose(self._node(c)),
            "primary-kill": lambda c: self._kill(self._primary(c)),
            "primary-stop": lambda c: self._stop(self._primary(c)),
            "registry-kill": lambda c: self._kill(REGISTRY),
            "registry-stop": lambda c: self._stop(REGISTRY),
            "writer-kill": self._kill_writer,
            "writer-stop": self._stop_writer,
            "writer-and-primary-kill": self._kill_both,
            "all-members-kill": self._kill_members,
            "flip-memory": self._flip_memory,
            "flip-base-file": self._flip_base,
        }
        if rig.apart:
            self._do |= {
                "link-cut": lambda c: self._cut(c, both=True),
                "link-cut-one-way": lambda c: self._cut(c, both=False),
                "host-unplugged": self._unplug,
                "disk-full": self._fill,
            }

    @property
    def kinds(self) -> list[str]:
        """Those that can be done here."""
        return list(self._do)

    @staticmethod
    def is_light(kind: str) -> bool:
        """True for what takes nothing from the copies: it may come before all is whole again, or beside another."""
        return kind.startswith(("registry-", "writer-kill", "writer-stop"))

    @staticmethod
    def takes_copies(kind: str) -> bool:
        """True for what takes content away that only the other copies still have. The memory of a process that was
        killed, stopped or cut off is there again with it."""
        return kind == "node-memory-lost" or kind.startswith("flip-")

    @contextmanager
    def held(self, choice: Choice) -> Iterator[str]:
        """Does a fault, gives whom it met, and makes good at the end, whatever happened meanwhile."""
        steps = self._do[choice.kind](choice)
        try:
            yield next(steps)
        finally:
            next(steps, None)

    def _node(self, c: Choice) -> str:
        """Half of the time one that holds the database, else any."""
        members, nodes = self._rig.members(c.database.name), self._rig.nodes
        return members[c.node % len(members)] if c.back else nodes[c.node % len(nodes)]

    def _primary(self, c: Choice) -> str:
        return self._rig.members(c.database.name)[0]

    def _seat(self, c: Choice) -> Seat:
        of_database = [s for s in self._clients.seats if s.database == c.database]
        return of_database[c.seat % len(of_database)]

    def _kill(self, name: str) -> Iterator[str]:
        self._rig.signal(name, signal.SIGKILL)
        yield name
        self._rig.mend()

    def _lose(self, name: str) -> Iterator[str]:
        arena = self._rig.arena(name)
        self._rig.signal(name, signal.SIGKILL)
        arena.unlink(missing_ok=True)
        yield name
        self._rig.mend()

    def _stop(self, name: str) -> Iterator[str]:
        self._rig.signal(name, signal.SIGSTOP)
        yield name
        self._rig.signal(name, signal.SIGCONT)

    def _kill_writer(self, c: Choice) -> Iterator[str]:
        seat = self._seat(c)
        self._clients.kill(seat)
        yield f"{seat.host}-{seat.database.name}"
        self._clients.start()

    def _kill_both(self, c: Choice) -> Iterator[str]:
        seat, primary = self._seat(c), self._primary(c)
        if seat.process is not None:
            seat.process.kill()
        self._rig.signal(primary, signal.SIGKILL)
        self._clients.kill(seat)
        yield f"{seat.host}-{seat.database.name}, {primary}"
        self._clients.start()
        self._rig.mend()

    def _kill_members(self, c: Choice) -> Iterator[str]:
        """Their memories outlive the processes."""
        members = self._rig.members(c.database.name)
        for name in members:
            self._rig.signal(name, signal.SIGKILL)
        yield ", ".join(members)
        self._rig.mend()

    def _stop_writer(self, c: Choice) -> Iterator[str]:
        seat = self._seat(c)
        process = seat.process
        if process is not None:
            process.send_signal(signal.SIGSTOP)
        yield f"{seat.host}-{seat.database.name}"
        if process is not None:
            process.send_signal(signal.SIGCONT)

    def _cut(self, c: Choice, both: bool) -> Iterator[str]:
        assert self._rig.links is not None
        node = self._node(c)
        others = [h for h in (*self._rig.nodes, *self._rig.clients, REGISTRY) if h != node]
        other = others[c.other % len(others)]
        sender, receiver = (other, node) if c.other & 0x8000 else (node, other)
        self._rig.links.cut(sender, receiver)
        if both:
            self._rig.links.cut(receiver, sender)
        yield f"{sender} {'<->' if both else '->'} {receiver}"
        self._rig.links.heal()

    def _unplug(self, c: Choice) -> Iterator[str]:
        assert self._rig.links is not None
        others = [*self._rig.clients, REGISTRY]
        host = self._node(c) if c.other & 1 else others[c.other // 2 % len(others)]
        self._rig.links.unplug(host)
        yield host
        self._rig.links.heal()

    def _fill(self, c: Choice) -> Iterator[str]:
        node = self._node(c)
        path = self._rig.data_dir(node)
        end = time.monotonic() + c.hold_s
        disks.fill(path)
        while time.monotonic() < end:  # what the node frees meanwhile
            time.sleep(_REFILL_S)
            disks.fill(path)
        yield node
        disks.free(path)
        self._rig.mend()

    def _flip_memory(self, c: Choice) -> Iterator[str]:
        node = self._member(c)
        yield from self._flipped(c, node, self._flip_frame(c, node))

    def _flip_base(self, c: Choice) -> Iterator[str]:
        """Where there is no base file yet, in the memory."""
        node = self._member(c)
        known = self._rig.group(c.database.name, node)
        path = self._rig.data_dir(node) / "base"
        flip = known and damage.in_base(path / f"{known[0].dataset:016x}.db", random.Random(c.seed))
        yield from self._flipped(c, node, flip or self._flip_frame(c, node))

    def _flip_frame(self, c: Choice, node: str) -> damage.Flip | None:
        known = self._rig.group(c.database.name, node)
        if known is None:
            return None
        dataset, status = known
        return damage.in_arena(self._rig.arena(node), dataset.group, status.flushed, random.Random(c.seed))

    def _member(self, c: Choice) -> str:
        """Half of the time the primary, which is asked first."""
        members = self._rig.members(c.database.name)
        return members[0 if c.back else c.node % len(members)]

    def _flipped(self, c: Choice, node: str, flip: damage.Flip | None) -> Iterator[str]:
        """A process without a cache reads all of the database meanwhile."""
        if flip is None:
            self.flips["nothing clean"] += 1
            yield f"{node}: nothing that is clean"
            return
        before = self._rig.checksum_errors(node)
        try:
            self._scan(c)
            self.flips["noticed" if self._rig.checksum_errors(node) > before else "not read"] += 1
            yield f"{node}: {flip.what}"
        finally:
            self.flips["flipped back" if flip.undo() else "replaced"] += 1

    def _scan(self, c: Choice) -> None:
        name = f"scan-{c.seed}-{time.monotonic_ns()}"
        self._clients.run(name, "scan", c.database, self._rig.clients[0], SCAN_S)
