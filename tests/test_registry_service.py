"""The registry against nodes that speak the wire: what it answers is written and heard; it forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from peer import FakeNode

from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError, UsageError
from dspm.netram.messages import CreateOptions, NodeEntry
from dspm.netram.registry import service as service_module
from dspm.netram.registry.catalog import Catalog, Defaults
from dspm.netram.registry.membership import Rules
from dspm.netram.registry.service import Service
from dspm.netram.registry.store import Store

KEY = b"secret"
Body = Callable[[Service, list[FakeNode]], Awaitable[None]]


def registry(path: Path, failover: bool = False) -> Service:
    """Without `failover` members stay as they are: what is tested here is everything else."""
    catalog = Catalog(Store(path / "registry.db", "c"), Defaults("memory", 2, 1, 300))
    return Service(catalog, KEY, Rules(failover))


def with_cluster(path: Path, body: Body, nodes: int = 3) -> None:
    async def run() -> None:
        service = registry(path)
        fakes = [FakeNode(f"n{i}", KEY, "c") for i in range(1, nodes + 1)]
        try:
            for f in fakes:
                await f.start()
                await service.add_node(NodeEntry(f.name, f.address, f"{f.name}@local"))
            await body(service, fakes)
        finally:
            await service.stop()
            for f in fakes:
                await f.stop()

    asyncio.run(run())


def create() -> dict[str, Any]:
    return {"durability": None, "copies": None, "min_copies": None, "exclusive": False}


def by_name(nodes: list[FakeNode], name: str) -> FakeNode:
    return next(n for n in nodes if n.name == name)


def test_a_dataset_is_answered_when_its_members_know_it(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        seen = set()
        for i in range(6):
            found = await nodes[i % 3].ask_registry({"op": "locate", "name": f"d{i}", "create": create()})
            assert found["created"] and found["lease_ms"] == 300
            members = [m["node"] for m in found["set"]["members"]]
            assert found["set"]["primary"] == members[0] and len(set(members)) == 2
            assert {n["name"] for n in found["nodes"]} == set(members)
            for m in members:
                node = by_name(nodes, m)
                assert node.datasets[f"d{i}"] == found["entry"]
                assert found["set"]["id"] in [s["id"] for s in node.view["sets"]]
            seen.add(found["set"]["id"])
        assert len(seen) == 3, "one set for the same primary and members"
        again = await nodes[0].ask_registry({"op": "locate", "name": "d0", "create": create()})
        assert not again["created"]

    with_cluster(tmp_path, body)


def test_store_ids_are_those_of_the_members(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        found = await service.locate("d", CreateOptions(copies=3, min_copies=2, durability="disk"))
        assert {(m.node, m.store) for m in found.set.members} == {(n.name, n.store) for n in nodes}
        assert (found.entry.copies, found.entry.min_copies, found.entry.durability) == (3, 2, "disk")
        assert found.set.generation == 1 and found.set.last_active == found.set.members

    with_cluster(tmp_path, body)


def test_remove_and_rename_reach_the_nodes_and_ids_are_new(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        first = (await service.locate("a", CreateOptions())).entry
        await nodes[0].ask_registry({"op": "rename", "name": "a", "to": "b/ü"})
        assert all(list(n.datasets) == ["b/ü"] for n in nodes)
        assert nodes[0].datasets["b/ü"]["dataset"] == first.dataset
        other = (await service.locate("c", CreateOptions())).entry
        await nodes[0].ask_registry({"op": "rename", "name": "c", "to": "b/ü", "aside": "old"})
        found = {name: entry["dataset"] for name, entry in nodes[1].datasets.items()}
        assert found == {"b/ü": other.dataset, "old": first.dataset}
        await nodes[0].ask_registry({"op": "rename", "name": "old", "to": "b/ü", "aside": "gone"})
        await nodes[1].ask_registry({"op": "remove", "name": "gone"})
        await nodes[1].ask_registry({"op": "remove", "name": "b/ü"})
        assert all(n.datasets == {} for n in nodes)
        second = (await service.locate("b/ü", CreateOptions())).entry
        assert len({first.dataset, first.group, second.dataset, second.group}) == 4

    with_cluster(tmp_path, body)


def test_what_is_refused(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        await service.locate("a", CreateOptions())
        await service.locate("b", CreateOptions())
        with pytest.raises(NotFoundError):
            await nodes[0].ask_registry({"op": "locate", "name": "no", "create": None})
        with pytest.raises(NotFoundError):
            await service.remove("no")
        with pytest.raises(DspmError, match="exists"):
            await service.rename("a", "b")
        with pytest.raises(DspmError, match="exists"):
            await service.rename("a", "b", "a")
        with pytest.raises(DspmError, match="exists"):
            await service.locate("a", CreateOptions(exclusive=True))
        for options in (CreateOptions(copies=4), CreateOptions(min_copies=3), CreateOptions(durability="pm")):
            with pytest.raises(UsageError):
                await service.locate("c", options)
        for name in ("", "n" * 1025, "a\0b"):
            with pytest.raises(UsageError):
                await service.locate(name, CreateOptions())
        with pytest.raises(UsageError):
            await service.add_node(NodeEntry("bad name", "h:1", "m"))
        with pytest.raises(ConflictError):
            await service.add_node(NodeEntry("n1", "127.0.0.1:1", "m"))
        assert sorted(service.catalog.datasets) == ["a", "b"]

    with_cluster(tmp_path, body)


def test_a_deaf_member_holds_the_answer_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HEAR_TIMEOUT_S", 0.3)

    async def body(service: Service, nodes: list[FakeNode]) -> None:
        nodes[1].deaf = True
        with pytest.raises(UnavailableError, match="n2 did not hear"):
            await service.locate("a", CreateOptions())
        nodes[1].deaf = False
        monkeypatch.setattr(service_module, "HEAR_TIMEOUT_S", 30.0)
        found = await service.locate("a", None)
        assert [m.node for m in found.set.members] == ["n1", "n2"]
        assert "a" in nodes[1].datasets

    with_cluster(tmp_path, body, nodes=2)


def test_a_registry_that_starts_again_knows_all_and_tells_it(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        for i in range(5):
            await service.locate(f"d{i}", CreateOptions())
        await service.remove("d3")
        await service.stop()
        nodes[0].view["version"] = 0
        nodes[0].datasets = {"stranger": {}}
        again = registry(tmp_path)
        again.start()
        try:
            for node in nodes:
                await again.add_node(NodeEntry(node.name, node.address, f"{node.name}@local"))
            assert again.catalog.view() == service.catalog.view()
            assert all(sorted(n.datasets) == ["d0", "d1", "d2", "d4"] for n in nodes)
            await again.locate("x", CreateOptions())
            with pytest.raises(ConflictError, match="another registry"):
                service.catalog.create("late", CreateOptions(), {n.name: n.store for n in nodes})
        finally:
            await again.stop()

    with_cluster(tmp_path, body)


def test_a_node_that_lost_its_memory_is_shown(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        await service.locate("a", CreateOptions())
        old = by_name(nodes, "n1")
        host, port = old.address.split(":")
        await old.stop()
        new = FakeNode("n1", KEY, "c")
        await new.start(host, int(port))
        try:
            states: dict[str, str] = {}
            while states.get("n1") != "lost its memory":
                await asyncio.sleep(0.01)
                states = {n["name"]: n["state"] for n in service.node_states()}
            assert states == {"n1": "lost its memory", "n2": "serving"}
        finally:
            await new.stop()

    with_cluster(tmp_path, body, nodes=2)


async def start_again(node: FakeNode, store: int, *former: int) -> FakeNode:
    """The node's process again, at its address, with another memory."""
    host, port = node.address.split(":")
    new = FakeNode(node.name, KEY, "c", store, former)
    await new.start(host, int(port))
    return new


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_node_that_lost_its_memory_twice_unseen_goes_on_from_its_log(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        found = await service.locate("a", CreateOptions(durability="disk"))
        old = by_name(nodes, "n1")
        await old.stop()
        back = await start_again(old, 77, 76, old.store)
        try:
            await until(lambda: service.catalog.sets[found.set.id].members[0].store == 77)
            await until(lambda: {n["state"] for n in service.node_states()} == {"serving"})
        finally:
            await back.stop()

    with_cluster(tmp_path, body, nodes=2)


def test_a_stranger_to_its_sets_is_known_and_takes_new_datasets(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        found = await service.locate("a", CreateOptions(durability="disk"))
        old = by_name(nodes, "n1")
        await old.stop()
        back = await start_again(old, 77, 76)  # its log was damaged at one of the starts: no former name reaches back
        try:
            await until(lambda: service.node_states()[0]["state"] == "lost its memory")
            why = service.node_states()[0]["why"]
            assert "1 replica set waits" in why and "new datasets are served" in why
            new = await service.locate("b", CreateOptions(durability="disk"))
            assert {m.node: m.store for m in new.set.members}["n1"] == 77
            assert service.catalog.sets[found.set.id] == found.set, "taken for a member of what it does not hold"
        finally:
            await back.stop()

    with_cluster(tmp_path, body, nodes=2)


def test_what_is_removed_is_owed_until_it_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspm.netram.registry.peer.FREE_RETRY_S", 0.05)

    async def body(service: Service, nodes: list[FakeNode]) -> None:
        entries = [(await service.locate(f"d{i}", CreateOptions())).entry for i in range(3)]
        n1, n2 = nodes
        await n2.stop()
        await until(lambda: service.node_states()[1]["state"] == "down")
        await service.remove("d0")
        await until(lambda: n1.freed == [entries[0].group])
        assert (service.catalog.owed_to("n1"), service.catalog.owed_to("n2")) == ([], [entries[0].group])
        await service.stop()
        again = registry(tmp_path)  # what is owed outlives the registry's process
        again.start()
        back = FakeNode("n2", KEY, "c", n2.store)
        back.cannot_free = "its disk is full"
        try:
            host, port = n2.address.split(":")
            await back.start(host, int(port))
            await until(lambda: back.heard.count("datasets") > 3)
            assert back.freed == [] and again.catalog.owed_to("n2") == [entries[0].group]
            assert (await again.locate("new", CreateOptions())).created, "the node serves meanwhile"
            back.cannot_free = ""
            await until(lambda: again.catalog.owed_to("n2") == [])
            assert back.freed == [entries[0].group] and n1.freed == back.freed
            assert list(registry(tmp_path).catalog.datasets) == ["d1", "d2", "new"]
            assert registry(tmp_path).catalog.owed_to("n2") == [], "written"
        finally:
            await again.stop()
            await back.stop()

    with_cluster(tmp_path, body, nodes=2)


def test_a_registry_that_is_too_old_frees_nothing(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        for name in ("old", "older"):  # a set for each primary, so that the view does not change any more
            await service.locate(name, CreateOptions())
        backup = (tmp_path / "registry.db").read_bytes()
        await service.locate("young", CreateOptions())
        await service.stop()
        (tmp_path / "registry.db").write_bytes(backup)
        restored = registry(tmp_path)
        restored.start()
        try:
            await until(lambda: all(sorted(n.datasets) == ["old", "older"] for n in nodes))
            await restored.locate("new", CreateOptions())
            await restored.remove("new")
            await until(lambda: all(n.freed for n in nodes))
            assert {len(n.freed) for n in nodes} == {1}, "only what was removed by name"
        finally:
            await restored.stop()

    with_cluster(tmp_path, body, nodes=2)


def test_pages_of_the_list(tmp_path: Path) -> None:
    async def body(service: Service, nodes: list[FakeNode]) -> None:
        names = ["b", "a", "é", "Z", "c/d", "zz"]
        for name in names:
            await service.locate(name, CreateOptions())
        await service.rename("b", "y")
        await service.remove("a")
        left = sorted({*names, "y"} - {"a", "b"})
        found: list[str] = []
        more = True
        while more:
            page, more = service.catalog.page(found[-1] if found else "", 2)
            assert 0 < len(page) <= 2
            found += [d.name for d in page]
        assert found == left
        assert registry(tmp_path).catalog.page("", 100) == service.catalog.page("", 100)

    with_cluster(tmp_path, body)


def test_a_wrong_key_and_a_wrong_name_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HEAR_TIMEOUT_S", 2.0)

    async def body(service: Service, nodes: list[FakeNode]) -> None:
        stranger, liar = FakeNode("s", b"other", "c"), FakeNode("x", KEY, "c")
        for f, name, why in ((stranger, "s", "key"), (liar, "l", "'x'")):
            await f.start()
            with pytest.raises(UnavailableError, match=why):
                await service.add_node(NodeEntry(name, f.address, "m"))
            await f.stop()

    with_cluster(tmp_path, body, nodes=1)


def test_a_large_catalog_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspm.netram.registry.peer.PUSH_BYTES_MAX", 700)

    async def body(service: Service, nodes: list[FakeNode]) -> None:
        names = [f"dataset-{i}" for i in range(20)]
        for name in names:
            await service.locate(name, CreateOptions())
        nodes[0].datasets = {}
        while sorted(nodes[0].datasets) != sorted(names):
            await asyncio.sleep(0.01)
        assert nodes[0].heard.count("datasets") > 20

    with_cluster(tmp_path, body)
