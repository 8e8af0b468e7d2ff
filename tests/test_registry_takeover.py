"""A registry with an old state goes on from what the nodes know: by itself where it is certain, else when an
operator says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_cluster import Cluster, names, run
from test_registry_outdated import start
from test_registry_service import registry, until

from dspm.errors import ConflictError, UnavailableError
from dspm.netram.messages import DatasetEntry, MemberEntry, NodeEntry, SetEntry
from dspm.netram.registry.takeover import LEAP, Known, certain, going_on
from dspm.netram.viewsum import view_sum


def known(c: Cluster) -> dict[str, int]:
    return {d.name: d.dataset for d in c.service.catalog.datasets.values()}


async def newer(c: Cluster, path: Path) -> bytes:
    """A backup of the state, after which much happened."""
    await c.set_of("a")
    await c.set_of("gone")
    await c.service.remove("gone")
    backup = (path / "registry.db").read_bytes()
    await c.kill("n2")
    await c.becomes("a", "n1", "n3")
    await c.set_of("b", copies=3)
    await c.service.rename("a", "c")
    await until(lambda: all(n.view["version"] == c.service.catalog.view_version for n in c.nodes if n.name != "n2"))
    return backup


def test_it_goes_on_from_the_newest_view_when_all_that_it_names_are_heard(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        n4 = c.node("n4")
        backup = await newer(c, tmp_path)
        before, datasets = c.now("c"), known(c)
        await c.service.stop()
        start(c, tmp_path, backup)
        assert known(c).keys() == {"a"} and names(c.now("a").members) == ["n1", "n2"]
        await until(lambda: not c.service.catalog.ahead and c.service.catalog.view_version > LEAP)
        assert known(c) == datasets, "what was created and renamed since is known, what was removed is not"
        now = await c.becomes("c", "n1", "n3")
        assert now.id == before.id and now.generation == before.generation + LEAP
        await c.set_of("d")
        await until(lambda: n4.trouble == "" and set(n4.datasets) == {"b", "c", "d"})
        old = await c.back(c.node("n2"))  # it knows what was long ago, and follows
        await until(lambda: old.view["version"] == c.service.catalog.view_version)
        await c.service.stop()
        c.service = registry(tmp_path, failover=True)
        assert known(c).keys() == {"b", "c", "d"}, "it is written"
        c.service.start()

    run(tmp_path, 4, body)


@pytest.mark.parametrize("by_order", [False, True])
def test_a_node_that_may_know_more_is_waited_for_until_an_operator_gives_it_up(tmp_path: Path, by_order: bool) -> None:
    """Guards against a generation that was active at the one node that is away: going on without it would lose what was
    committed there."""

    async def body(c: Cluster) -> None:
        backup = await newer(c, tmp_path)
        datasets = known(c)
        n3 = await c.kill("n3")
        await c.becomes("c", "n1", "n4")
        for n in ("n4", "n1"):
            await until(lambda n=n: c.node(n).view["version"] == c.service.catalog.view_version)  # type: ignore[misc]
        await c.service.stop()
        n1 = await c.kill("n1")
        start(c, tmp_path, backup)
        await until(lambda: "n1 may know more" in c.service.catalog.trouble.replace("n1, n3", "n1"))
        version = c.service.catalog.view_version
        with pytest.raises(UnavailableError, match="not taken over"):
            await c.service.remove("a")
        if by_order:
            with pytest.raises(UnavailableError, match="n1 does not answer"):
                await c.service.take_over("n1")
            new = await c.service.take_over(None)
            assert new.base == "n4" and new.version > version + LEAP
            assert sorted(new.gained) == ["b"], "c is a, renamed"
        (await c.back(n1)).view = n1.view
        (await c.back(n3)).view = n3.view
        await until(lambda: c.service.catalog.view_version > LEAP and not c.service.catalog.ahead)
        assert known(c) == datasets
        await c.becomes("b", "n1", "n3", "n4")

    run(tmp_path, 4, body)


NODES = [NodeEntry(n, f"{n}:1", n) for n in ("n1", "n2", "n3")]


def m(*nodes: str) -> list[MemberEntry]:
    return [MemberEntry(n, int(n[1:])) for n in nodes]


def entry(generation: int, *nodes: str, state: str = "active", last: tuple[str, ...] = (), id: int = 7) -> SetEntry:
    return SetEntry(id, generation, state, nodes[0], m(*nodes), [], m(*(last or nodes)))  # type: ignore[arg-type]


def dataset(name: str, id: int, set_id: int = 7) -> DatasetEntry:
    return DatasetEntry(name, id, id + 100, set_id, "memory", 2, 1)


def side(version: int, sets: list[SetEntry], *datasets: DatasetEntry, node: str = "n9") -> Known:
    return Known(version, view_sum(version, NODES, sets), NODES, sets, list(datasets), {int(node[1:])})


A = dataset("a", 1)
OWN = side(3, [entry(1, "n1", "n2")], A)


def both(view: Known) -> dict[str, Known]:
    return {n: Known(view.version, view.sum, view.nodes, view.sets, view.datasets, {int(n[1:])}) for n in ("n1", "n2")}


def test_a_view_that_was_never_active_goes_on_from_the_last_active_set() -> None:
    activating = entry(2, "n2", state="activating", last=("n1", "n2"))
    found = certain(OWN, both(side(4, [activating], A)), {1})
    assert found.sets == [entry(2 + LEAP, "n2", "n1", state="activating")] or found.sets == [
        SetEntry(7, 2 + LEAP, "activating", "n2", m("n1", "n2"), [], m("n1", "n2"))
    ]
    assert found.version == 4 + LEAP


@pytest.mark.parametrize(
    "what",
    ["lost its memory", "two views of one version", "another generation 2", "own went on", "below an older view"],
)
def test_what_is_not_certain(what: str) -> None:
    newest, own = side(5, [entry(2, "n1", "n2")], A), OWN
    known = both(newest)
    match what:
        case "lost its memory":
            known["n2"] = side(5, newest.sets, A, node="n8")
        case "two views of one version":
            known["n3"] = side(5, [entry(2, "n1", "n3")], A, node="n3")
        case "another generation 2":
            known["n3"] = side(4, [entry(2, "n3")], A, node="n3")
        case "own went on":
            own = side(5, [entry(1, "n1", "n2"), entry(1, "n1", id=8)], A)
        case _:
            known["n3"] = side(4, [entry(3, "n1")], A, node="n3")
    with pytest.raises((ConflictError, UnavailableError)):
        certain(own, known, {1})
    assert certain(OWN, both(newest), {1}).sets[0].generation == 2 + LEAP
    forced = going_on(own, known, {1}, "n1")
    assert forced.sets[0].generation > max(s.generation for k in known.values() for s in k.sets)
    assert forced.version > max(own.version, *(k.version for k in known.values()))


def test_a_set_that_holds_nothing_is_waited_for_by_nobody() -> None:
    known = both(side(5, [entry(2, "n1", "n2"), entry(1, "n3", id=8)], A))
    assert [s.id for s in certain(OWN, known, {1}).sets] == [7]


def test_catalogs_of_different_times() -> None:
    """What only one knows may be new or removed: it stays. What this state gave and has no more was removed."""
    new, moved, late = dataset("new", 5), dataset("b", 1), dataset("a", 6)
    newest = side(5, [entry(2, "n1", "n2")], moved, new, late)
    known = {"n1": newest, "n2": side(4, [entry(1, "n1", "n2")], A, dataset("x", 2), node="n2")}
    own = side(3, [entry(1, "n1", "n2")], A, dataset("old", 3), dataset("new", 4))
    found = going_on(own, known, {1, 2, 3, 4}, "n1")
    assert {d.name: d.dataset for d in found.datasets} == {
        "b": 1,
        "new": 5,
        "a": 6,
        "old": 3,
        "new~0000000000000004": 4,
    }
    assert found.gained == ["a", "new"]
    assert found.doubtful == ["new~0000000000000004", "old"]
    assert found.aside == [("new", "new~0000000000000004")]


def test_the_name_of_what_is_set_aside_is_no_longer_than_a_name() -> None:
    name = "é" * 512
    known = {"n1": side(5, [entry(2, "n1")], dataset(name, 5))}
    found = going_on(side(3, [entry(1, "n1")], dataset(name, 1)), known, {1}, "n1")
    assert [len(d.name.encode()) for d in found.datasets] == [1023, 1024]
