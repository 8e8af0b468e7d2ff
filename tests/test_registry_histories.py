"""Random histories of the registry's decisions, with nodes that are as simple as the rules allow.

Fault model: nodes die, stop, lose their memory and come back in any order, as long as some complete member of the
last active set, and of the one that is becoming active, keeps its memory; they hear views late; the word to free
arrives late or not at all, what nodes report is repeated late; nodes are drained; the registry is started again. A
commit is acknowledged when all members and joining nodes of the generation have taken it; who has heard of a newer
generation refuses.

Checked after every step: whoever the record counts as complete holds every acknowledged commit. In the end, with all
nodes there: the set is whole.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dspm.errors import DspmError, UnavailableError
from dspm.netram.messages import CreateOptions, MemberEntry, NodeEntry, SetEntry
from dspm.netram.registry.catalog import Catalog, Defaults
from dspm.netram.registry.membership import Membership, Rules
from dspm.netram.registry.pace import ADD_MAX_S
from dspm.netram.registry.pulse import Way
from dspm.netram.registry.store import Store

SEEDS, STEPS, NODES = 200, 150, 4


class Node:
    def __init__(self, name: str, store: int) -> None:
        self.name, self.store, self.way = name, store, Way.HEARD
        self.held: set[int] = set()
        self.view: SetEntry | None = None

    def is_in(self, entry: SetEntry) -> bool:
        return MemberEntry(self.name, self.store) in [*entry.members, *entry.joining]


class History:
    def __init__(self, path: Path, seed: int) -> None:
        self.rng, self.path, self.now = random.Random(seed), path / f"{seed}.db", 1000.0
        self.copies = self.rng.choice([2, 2, 3])
        self.nodes = {f"n{i}": Node(f"n{i}", i + 1) for i in range(NODES)}
        self.stores, self.acknowledged = 100, 0
        self.freeing: list[tuple[str, list[int]]] = []
        self.reports: list[tuple[str, str, SetEntry, int]] = []
        self.start()
        for n in self.nodes.values():
            self.catalog.put_node(NodeEntry(n.name, "h:1", n.name))
        stores = {n.name: n.store for n in self.nodes.values()}
        self.dataset = self.catalog.create("d", CreateOptions(copies=self.copies), stores)

    def start(self) -> None:
        store = Store(self.path, "c")
        store._db.execute("PRAGMA synchronous=OFF")  # no power cut here
        self.catalog = Catalog(store, Defaults("memory", 2, 1, 300))
        self.membership = Membership(self.catalog, Rules(), lambda _: None, lambda: self.now)

    @property
    def entry(self) -> SetEntry:
        return self.catalog.sets[self.dataset.set]

    def complete(self) -> list[Node]:
        return [n for m in self.entry.last_active if (n := self.nodes[m.node]).store == m.store]

    def check(self) -> None:
        assert self.entry.members and self.entry.primary in [m.node for m in self.entry.members]
        for n in self.complete():
            assert len(n.held) == self.acknowledged, f"{n.name} counts as complete in {self.entry}"

    def pass_time(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / 0.05))):
            self.now += 0.05
            for n in self.nodes.values():
                if n.way is Way.HEARD:
                    self.membership.pulse(n.name).heard(self.now, n.store, frozenset())
                else:
                    self.membership.pulse(n.name).lost(n.way)
            self.membership.tick()
            self.membership.look()

    def hear(self, n: Node) -> None:
        if n.way is Way.HEARD:
            n.view = self.entry

    def team(self, state: str) -> list[Node] | None:
        """All of a generation, if its primary and all others are there and obey it."""
        primary = self.nodes[self.entry.primary]
        view = primary.view
        if view is None or view.primary != primary.name or view.state != state:
            return None
        team = [self.nodes[m.node] for m in (*view.members, *view.joining)]
        obey = all(n.way is Way.HEARD and n.view and n.view.generation == view.generation for n in team)
        return team if obey and all(n.is_in(view) for n in team) else None

    def commit(self) -> None:
        team = self.team("active")
        if team is not None:
            self.acknowledged += 1
            for n in team:
                n.held.add(self.acknowledged)

    def activate(self) -> None:
        team = self.team("activating")
        if team is not None and team[0].view is not None:
            self.report("activated", team[0], team[0].view)

    def join(self, n: Node) -> None:
        view, team = n.view, self.team("active")
        if view is not None and team is not None and MemberEntry(n.name, n.store) in view.joining and n in team:
            n.held |= self.nodes[view.primary].held
            self.report("whole", n, view)

    def report(self, what: str, n: Node, view: SetEntry) -> None:
        """Said, and said again some time later, as a node does that got no answer."""
        self.reports.append((what, n.name, view, n.store))
        self.deliver(-1)

    def deliver(self, number: int) -> None:
        what, name, view, store = self.reports[number]
        try:
            if what == "whole":
                self.membership.whole(name, view.id, view.generation, store)
            else:
                self.membership.activated(name, view.id, view.generation)
        except DspmError:
            pass  # it is another generation by now

    def free(self, n: Node) -> None:
        """Sent now, or what was sent earlier arrives."""
        if self.rng.random() < 0.5:
            self.freeing.append((n.name, self.catalog.owed_to(n.name)))
        elif self.freeing:
            name, groups = self.freeing.pop(self.rng.randrange(len(self.freeing)))
            node = self.nodes[name]
            if groups and node.way is Way.HEARD and not (node.view and node.is_in(node.view)):
                node.held = set()
                self.catalog.freed(name, groups)

    def fail(self, n: Node) -> None:
        n.way = self.rng.choice([Way.GONE, Way.GONE, Way.FROZEN, Way.UNREACHABLE])
        others = [m for m in self.complete() if m is not n]
        becoming = [m for m in self.entry.members if m.node != n.name and self.nodes[m.node].store == m.store]
        if n.way is Way.GONE and others and becoming and self.rng.random() < 0.5:
            self.stores += 1
            n.store, n.held, n.view = self.stores, set(), None

    def step(self) -> None:
        n, x = self.rng.choice(list(self.nodes.values())), self.rng.random()
        if x < 0.05:
            self.fail(n)
        elif x < 0.13:
            n.way = Way.HEARD
        elif x < 0.14:
            self.start()
        elif x < 0.16:
            self.drain(n)
        elif x < 0.18:
            self.membership.undrain(n.name)
        elif x < 0.45:
            self.hear(n)
        elif x < 0.6:
            self.commit()
        elif x < 0.7:
            self.activate()
        elif x < 0.8:
            self.join(n)
        elif x < 0.87:
            self.free(n)
        elif x < 0.9 and self.reports:
            self.deliver(-self.rng.randint(1, min(4, len(self.reports))))
        else:
            self.pass_time(self.rng.choice([0.05, 0.3, 0.6, 3]))

    def drain(self, n: Node) -> None:
        before = set(self.catalog.draining)
        try:
            self.membership.drain(n.name)
        except UnavailableError:
            assert self.catalog.draining == before, "refused, and done"

    def quiet(self) -> None:
        """Nothing fails any more."""
        for n in self.nodes.values():
            n.way = Way.HEARD
        for name in list(self.catalog.draining):
            self.membership.undrain(name)

        def is_whole() -> bool:
            e = self.entry
            return (e.state, len(e.members), e.joining, e.dropped) == ("active", self.copies, [], [])

        for i in range(int(2 * ADD_MAX_S)):  # who failed often is added late
            if i > 10 and is_whole():
                return
            self.pass_time(1.0)
            for n in self.nodes.values():
                self.hear(n)
            self.activate()
            for n in self.nodes.values():
                self.hear(n)
            for n in self.nodes.values():
                self.join(n)
            self.check()
        assert is_whole(), self.entry


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_histories(tmp_path: Path, first: int) -> None:
    changes = commits = 0
    for seed in range(first, first + 10):
        h = History(tmp_path, seed)
        try:
            for _ in range(STEPS):
                h.step()
                h.check()
            h.quiet()
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}") from e
        changes += h.entry.generation - 1
        commits += h.acknowledged
    assert changes > 10 and commits > 10, "nothing happened"
