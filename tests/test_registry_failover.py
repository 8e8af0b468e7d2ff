"""Failover as the registry does it, against nodes that speak the wire: real sockets, processes that are gone, silent
or back, and a registry that is stopped or started again in the middle of a change.

No assertion depends on how long something takes, only on what is done in the end and in which order.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from peer import FakeNode
from test_registry_service import KEY, by_name, registry, start_again, until

from dspm.errors import ConflictError, NotFoundError, UnavailableError
from dspm.netram.messages import CreateOptions, MemberEntry, NodeEntry, SetEntry
from dspm.netram.registry.pulse import Way
from dspm.netram.registry.service import Service

Body = Callable[[Service, list[FakeNode]], Awaitable[None]]


def names(entries: list[MemberEntry]) -> list[str]:
    return [m.node for m in entries]


class Cluster:
    """A registry that changes members, and nodes that activate and become whole when they are let."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = registry(path, failover=True)
        self.nodes: list[FakeNode] = []
        self.offset = 0.0
        clock = self.service.membership.clock
        self.service.membership.clock = lambda: clock() + self.offset

    async def start(self, count: int) -> None:
        for i in range(1, count + 1):
            await self.add(FakeNode(f"n{i}", KEY, "c"))

    async def add(self, node: FakeNode) -> None:
        await node.start()
        node.activates = node.joins = True
        self.nodes.append(node)
        await self.service.add_node(NodeEntry(node.name, node.address, f"{node.name}@local"))

    async def stop(self) -> None:
        await self.service.stop()
        for node in self.nodes:
            await node.stop()

    async def set_of(self, name: str, copies: int = 2, durability: str = "memory") -> SetEntry:
        """A new dataset's set."""
        await self.service.locate(name, CreateOptions(copies=copies, durability=durability))  # type: ignore[arg-type]
        return self.now(name)

    def now(self, name: str) -> SetEntry:
        return self.service.catalog.sets[self.service.catalog.find(name).set]

    def node(self, name: str) -> FakeNode:
        return by_name(self.nodes, name)

    async def kill(self, name: str) -> FakeNode:
        await self.node(name).stop()
        return self.node(name)

    async def back(self, node: FakeNode, store: int | None = None, *former: int) -> FakeNode:
        new = await start_again(node, node.store if store is None else store, *former)
        new.activates = new.joins = True
        self.nodes[self.nodes.index(node)] = new
        return new

    async def becomes(self, name: str, *members: str) -> SetEntry:
        """Waits until the dataset's set is active with these members and nobody joins."""

        def there() -> bool:
            s = self.now(name)
            return s.state == "active" and not s.joining and sorted(names(s.members)) == sorted(members)

        await until(there)
        return self.now(name)


@contextlib.asynccontextmanager
async def running(path: Path, count: int) -> AsyncIterator[Cluster]:
    cluster = Cluster(path)
    try:
        await cluster.start(count)
        yield cluster
    finally:
        await cluster.stop()


def run(path: Path, count: int, body: Callable[[Cluster], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with running(path, count) as cluster:
            await body(cluster)

    asyncio.run(all_of_it())


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_dead_member_is_replaced_and_owes_its_data(tmp_path: Path, victim: str) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        assert names(before.members) == ["n1", "n2"]
        other = "n2" if victim == "n1" else "n1"
        dead = await c.kill(victim)
        after = await c.becomes("a", other, "n3")
        assert after.primary == other
        assert after.last_active == after.members and after.dropped == [] and after.generation > before.generation
        group = c.service.catalog.find("a").group
        assert c.service.catalog.owed_to(victim) == [group]
        heard = [s for s in c.node(other).changes if s["id"] == before.id]
        first = next(s for s in heard if s["state"] == "activating")
        assert [m["node"] for m in first["members"]] == [other] and [m["node"] for m in first["joining"]] == ["n3"]
        assert [m["node"] for m in first["dropped"]] == [victim], "named while a copy is missing"
        back = await c.back(dead)
        await until(lambda: back.freed == [group])
        assert names(c.now("a").members) == [other, "n3"], "the set has all its copies"

    run(tmp_path, 3, body)


def test_without_a_spare_the_set_goes_on_and_takes_the_member_back(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        dead = await c.kill("n2")
        await until(lambda: names(c.now("a").last_active) == ["n1"] and c.now("a").state == "active")
        assert names(c.now("a").dropped) == ["n2"] and c.service.catalog.owed_to("n2") == []
        back = await c.back(dead, 77)  # without its memory: it joins all the same
        after = await c.becomes("a", "n1", "n2")
        assert after.members == [MemberEntry("n1", c.node("n1").store), MemberEntry("n2", 77)]
        assert after.dropped == [] and back.freed == []

    run(tmp_path, 2, body)


def test_a_node_that_is_taken_back_owes_nothing(tmp_path: Path) -> None:
    """Guards the data of a member: what it was told to free when another had replaced it is not freed any more."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        n2 = await c.kill("n2")
        await c.becomes("a", "n1", "n3")
        group = c.service.catalog.find("a").group
        assert c.service.catalog.owed_to("n2") == [group]
        await c.kill("n3")
        await until(lambda: names(c.now("a").members) == ["n1"] and c.now("a").state == "active")
        assert c.service.catalog.owed_to("n2") == [group]
        back = await c.back(n2)
        back.cannot_free = "not now"
        await until(lambda: "n2" in names([*c.now("a").joining, *c.now("a").members]))
        assert c.service.catalog.owed_to("n2") == []
        back.cannot_free = ""
        await c.becomes("a", "n1", "n2")
        assert back.freed == [] and registry(tmp_path).catalog.owed_to("n2") == []

    run(tmp_path, 3, body)


def test_a_stopped_member_is_replaced_when_somebody_can(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        c.node("n1").deaf = True
        await c.becomes("a", "n2", "n3")
        c.node("n1").deaf = False
        c.node("n2").deaf = True
        await c.becomes("a", "n3", "n1")  # it went on, and is as good as any other

    run(tmp_path, 3, body)


def test_a_stopped_member_that_nobody_can_replace_is_waited_for(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        c.node("n2").deaf = True
        pulse, clock = c.service.membership.pulse("n2"), c.service.membership.clock
        await until(lambda: pulse.at(clock()).is_suspect(0.6))
        assert c.now("a") == before
        c.node("n2").deaf = False
        await until(lambda: pulse.at(clock()).silent_s < 0.1)
        assert c.now("a") == before

    run(tmp_path, 2, body)


def test_no_complete_member_left_is_down_until_one_is_back(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        for n in ("n1", "n2"):
            c.node(n).activates = False
        n1, n2 = await c.kill("n1"), await c.kill("n2")
        await until(lambda: all(s["state"] == "down" for s in c.service.node_states()[:2]))
        last = c.now("a")
        assert last.last_active == before.members, "nobody activated anything"
        stranger = await c.back(n1, 77)  # without its memory
        await until(lambda: c.service.node_states()[0]["state"] != "down")
        assert c.now("a").last_active == before.members and 77 not in [m.store for m in c.now("a").members]
        await stranger.stop()
        await c.back(n2)
        after = await c.becomes("a", "n2", "n3")
        assert after.members[0] == MemberEntry("n2", n2.store), "the one that kept its memory"
        assert after.generation > last.generation

    run(tmp_path, 3, body)


@pytest.mark.parametrize("durability", ["disk", "memory"])
def test_a_whole_set_comes_back_without_its_memory(tmp_path: Path, durability: str) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a", durability=durability)
        dead = [await c.kill(n) for n in ("n1", "n2")]
        await until(lambda: all(s["state"] == "down" for s in c.service.node_states()))
        for i, n in enumerate(dead):
            await c.back(n, 70 + i, 60, n.store)
        await until(lambda: {m.store for m in c.now("a").members} == {70, 71})
        after = await c.becomes("a", "n1", "n2")
        assert after.history == before.history + (durability == "memory")
        assert registry(tmp_path).catalog.sets[after.id] == after, "written"

    run(tmp_path, 2, body)


def test_a_registry_that_starts_again_ends_the_change(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        c.node("n1").activates = False
        await c.kill("n2")
        await until(lambda: c.now("a").state == "activating")
        middle = c.now("a")
        await c.service.stop()
        c.service = registry(tmp_path, failover=True)
        assert c.now("a") == middle
        c.node("n1").activates = True
        c.service.start()
        after = await c.becomes("a", "n1", "n3")
        assert after.generation >= middle.generation and after.dropped == []

    run(tmp_path, 3, body)


def test_a_registry_that_was_stopped_forgets_its_timers(tmp_path: Path) -> None:
    """Guards against members that are dropped on what was timed before this process was stopped: a moment of silence,
    an hour in which the registry did not run, and its first look at what it knew."""

    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        membership = c.service.membership
        await asyncio.sleep(0.3)  # the set may change again
        membership.pulse("n2").lost(Way.FROZEN)
        c.offset += 3600.0
        c.service._on_change()
        assert c.now("a") == before
        waiting = [membership.pulse(n.name) for n in c.nodes]
        await until(lambda: all(p.at(membership.clock()).way is Way.HEARD for p in waiting))
        await asyncio.sleep(0.1)
        assert c.now("a") == before

    run(tmp_path, 3, body)


def test_a_state_that_is_too_old_changes_nothing(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        backup = (tmp_path / "registry.db").read_bytes()
        await c.set_of("b", copies=3)
        await c.service.stop()
        (tmp_path / "registry.db").write_bytes(backup)
        await c.kill("n2")
        c.node("n1").view["version"] = 1  # it has not heard of b; n3 has
        c.service = registry(tmp_path, failover=True)
        c.service.start()
        before = c.now("a")
        pulse, clock = c.service.membership.pulse("n2"), c.service.membership.clock
        await until(lambda: pulse.at(clock()).silent_s > 1.5)
        assert c.now("a") == before
        assert {p.node.name: bool(p.ahead) for p in c.service._peers.values()} == {"n1": False, "n2": False, "n3": True}
        # Nor does it get a version by which it would look new.
        version = c.service.catalog.view_version
        with pytest.raises(UnavailableError, match="not the newest"):
            await c.service.add_node(NodeEntry("n4", "127.0.0.1:1", "n4@local"))
        with pytest.raises(UnavailableError, match="not the newest"):
            await c.service.remove("a")
        assert c.service.catalog.view_version == version

    run(tmp_path, 3, body)


def test_a_node_that_obeyed_something_else_is_believed(tmp_path: Path) -> None:
    """An old state whose version was raised past the nodes': nothing but the sets themselves shows what it is."""

    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        n3 = c.node("n3")
        n3.contradicts, refused = "another generation", len(n3.heard)
        await c.add(FakeNode("n4", KEY, "c"))
        await until(lambda: "view" in n3.heard[refused:] and bool(c.service.catalog.outdated))
        await c.kill("n2")
        pulse, clock = c.service.membership.pulse("n2"), c.service.membership.clock
        await until(lambda: pulse.at(clock()).silent_s > 1.5)
        assert c.now("a") == before
        assert "n3: another generation" in c.service.catalog.outdated

    run(tmp_path, 3, body)


def test_what_nodes_may_report(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        n1, n2, n3 = c.nodes
        told = {"set": before.id, "generation": before.generation}
        assert await n1.ask_registry({"op": "activated", **told}) == {"done": True}
        with pytest.raises(ConflictError):
            await n2.ask_registry({"op": "activated", **told})
        with pytest.raises(ConflictError):
            await n1.ask_registry({"op": "activated", **told, "generation": before.generation + 1})
        with pytest.raises(ConflictError):
            await n3.ask_registry({"op": "whole", **told, "store": n3.store})
        with pytest.raises(UnavailableError):
            await n3.ask_registry({"op": "whole", **told, "store": n2.store})
        with pytest.raises(NotFoundError):
            await n1.ask_registry({"op": "activated", "set": 7, "generation": 1})
        assert c.now("a") == before

    run(tmp_path, 3, body)


def test_a_failed_write_changes_nothing_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        store = c.service.catalog._store
        version, store.version = store.version, -1  # what another registry would do to it
        await c.kill("n2")
        await until(lambda: c.service.membership._pace(before).held > c.service.membership.clock())
        assert c.now("a") == before
        store.version = version
        await c.becomes("a", "n1", "n3")

    run(tmp_path, 3, body)


def test_a_node_is_drained_and_taken_back(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        with pytest.raises(NotFoundError):
            c.service.membership.drain("n9")
        before = await c.set_of("a", copies=3)
        with pytest.raises(UnavailableError, match="no node can take over from n1.*n2, n3"):
            c.service.membership.drain("n1")
        assert c.service.catalog.draining == set() and c.now("a") == before
        await c.add(FakeNode("n4", KEY, "c"))
        assert c.service.membership.drain("n1") == 1
        await until(lambda: names(c.now("a").last_active) == ["n2", "n3", "n4"])
        after = c.now("a")
        assert after.primary == "n2" and after.dropped == []
        changes = [s for s in c.node("n2").changes if s["id"] == after.id and s["state"] == "active"]
        assert all(len(s["members"]) >= 3 for s in changes), "never a copy less"
        await until(lambda: c.node("n1").freed == [c.service.catalog.find("a").group])
        assert registry(tmp_path).catalog.draining == {"n1"}
        assert "n1" not in names((await c.set_of("b", copies=3)).members)
        c.service.membership.undrain("n1")
        assert registry(tmp_path).catalog.draining == set()
        await c.kill("n4")
        await c.becomes("a", "n1", "n2", "n3")

    run(tmp_path, 3, body)


def test_switchover(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a", copies=3)
        assert (await c.service.switchover("a", "n1")) == before, "it is the primary"
        after = await c.service.switchover("a", "n3")
        assert (after.primary, after.state, set(after.members)) == ("n3", "active", set(before.members))
        assert (await c.service.switchover("a", None)).primary in ("n1", "n2")
        await c.add(FakeNode("n4", KEY, "c"))
        c.node("n4").joins = False
        for name, why in (("n4", "no member"), ("n9", "no node")):
            with pytest.raises((ConflictError, NotFoundError), match=why):
                await c.service.switchover("a", name)
        with pytest.raises(NotFoundError):
            await c.service.switchover("none", None)
        gone = next(n for n in ("n1", "n2", "n3") if n != c.now("a").primary)
        await c.kill(gone)
        await until(lambda: names(c.now("a").joining) == ["n4"] and c.now("a").state == "active")
        with pytest.raises(ConflictError, match="n4 is joining"):
            await c.service.switchover("a", "n4")
        c.node("n4").joins = True
        await c.node("n4").report()
        await c.becomes("a", "n4", *({"n1", "n2", "n3"} - {gone}))
        assert (await c.service.switchover("a", "n4")).primary == "n4"

    run(tmp_path, 3, body)


def test_an_activation_that_hangs_is_given_to_another(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a", copies=3)
        c.node("n2").activates = False
        await c.kill("n1")
        await until(lambda: c.now("a").state == "active" and c.now("a").primary == "n3")
        assert names(c.now("a").members) == ["n3", "n2"]

    run(tmp_path, 3, body)


def test_a_set_has_one_number_of_copies(tmp_path: Path) -> None:
    """Guards against a dataset of two copies in a set that is about to get its third."""

    async def body(c: Cluster) -> None:
        three = await c.set_of("three", copies=3)
        await c.kill("n3")
        await c.becomes("three", "n1", "n2")
        for name in ("b", "c"):
            two = await c.set_of(name)
            assert set(two.members) == set(c.now("three").members) and two.id != three.id
        assert {c.now(n).primary for n in ("b", "c")} == {"n1", "n2"}, "of each primary one"

    run(tmp_path, 3, body)


def test_a_fault_ends_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a registry that answers operators and no longer looks after its nodes."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        ended = asyncio.Event()
        c.service.on_fault = ended.set

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a slip")

        monkeypatch.setattr("dspm.netram.registry.driver.decide", broken)
        await c.kill("n1")
        await asyncio.wait_for(ended.wait(), 30)
        assert isinstance(c.service.fault, ZeroDivisionError)

    run(tmp_path, 2, body)


FORMAT_3 = """
CREATE TABLE cluster(id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, version INTEGER NOT NULL,
  view_version INTEGER NOT NULL);
CREATE TABLE nodes(name TEXT PRIMARY KEY, address TEXT NOT NULL, machine TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sets(id TEXT PRIMARY KEY, generation INTEGER NOT NULL, state TEXT NOT NULL, primary_node TEXT NOT NULL,
  members BLOB NOT NULL, joining BLOB NOT NULL, last_active BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE datasets(name TEXT PRIMARY KEY, dataset TEXT NOT NULL UNIQUE, group_id TEXT NOT NULL UNIQUE,
  set_id TEXT NOT NULL REFERENCES sets(id), durability TEXT NOT NULL, copies INTEGER NOT NULL,
  min_copies INTEGER NOT NULL, history_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE ids(id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE removed(node TEXT NOT NULL, group_id TEXT NOT NULL, dataset TEXT NOT NULL, PRIMARY KEY(node, group_id))
  WITHOUT ROWID;
INSERT INTO cluster VALUES(1, 'c', 12, 7);
INSERT INTO sets VALUES('0000000000000009', 1, 'active', 'n1', '[{"node":"n1","store":5}]', '[]',
  '[{"node":"n1","store":5}]');
PRAGMA user_version = 3;
"""


def test_a_state_of_before_failover_is_taken_over(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as db:
        db.executescript(FORMAT_3)
    for _ in range(2):  # once from format 3, once from what that made
        catalog = registry(tmp_path).catalog
        member = [MemberEntry("n1", 5)]
        assert catalog.sets == {9: SetEntry(9, 1, "active", "n1", member, [], member, [], 0)}
        assert catalog.draining == set() and catalog.view_version == 7
