"""A member whose disk is full refuses records, and with it the set takes no commits: another node takes its place,
where one is there; without one it is waited for. A node without room on its disk is given nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from registry_cluster import Cluster, names, run
from test_registry_service import until

from dspm.netram.registry.pulse import REFUSES_S

LONG_MS = 2 * round(1000 * REFUSES_S)


def fill(c: Cluster, name: str, refuses_ms: int = LONG_MS) -> None:
    node = c.node(name)
    node.full, node.refuses_ms = "its disk has no room", refuses_ms


async def settled(c: Cluster) -> None:
    """Every node was heard a few times, and the registry looked."""
    before = {n.name: len(n.heard) for n in c.nodes}
    await until(lambda: all(len(n.heard) >= before[n.name] + 4 for n in c.nodes))
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_member_that_refuses_records_is_replaced(tmp_path: Path, victim: str) -> None:
    """Guards commits: with a spare there they go on, and the member is taken in again when it has room."""

    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        other = "n2" if victim == "n1" else "n1"
        fill(c, victim)
        await until(lambda: victim not in names(c.now("a").members))
        assert c.now("a").generation > before.generation
        after = await c.becomes("a", other, "n3")
        state = next(n for n in c.service.node_states() if n["name"] == victim)
        assert state["state"] == "full" and "its disk has no room" in state["why"], state
        await c.kill("n3")
        await until(lambda: names(c.now("a").members) == [other])
        await settled_without(c, "n3")
        assert c.now("a").joining == [], "it would refuse at once"
        assert c.now("a").generation <= after.generation + 1
        c.node(victim).full, c.node(victim).refuses_ms = "", 0
        await c.becomes("a", other, victim)

    run(tmp_path, 3, body)


async def settled_without(c: Cluster, *dead: str) -> None:
    before = {n.name: len(n.heard) for n in c.nodes if n.name not in dead}
    await until(lambda: all(len(c.node(n).heard) >= k + 4 for n, k in before.items()))


def test_new_datasets_are_placed_where_there_is_room(tmp_path: Path) -> None:
    """Guards the first commits of a dataset; where no other node is there, one without room is better than no copy."""

    async def body(c: Cluster) -> None:
        fill(c, "n1", 0)
        await settled(c)
        for name in ("a", "b", "c"):
            assert sorted(names((await c.set_of(name)).members)) == ["n2", "n3"]
        placed = await c.set_of("d", copies=3)
        assert sorted(names(placed.members)) == ["n1", "n2", "n3"] and placed.primary != "n1"
        c.node("n1").full = ""
        await settled(c)
        assert (await c.set_of("e")).primary == "n1", "it has the least"

    run(tmp_path, 3, body)


@pytest.mark.parametrize(
    ("full", "refuses_ms"),
    [
        pytest.param(["n2"], 0, id="a disk that nobody writes to"),
        pytest.param(["n2"], round(900 * REFUSES_S), id="for a moment"),
        pytest.param(["n2", "n3"], LONG_MS, id="no spare has room"),
        pytest.param(["n1", "n2"], LONG_MS, id="no member has room"),
    ],
)
def test_it_is_waited_for(tmp_path: Path, full: list[str], refuses_ms: int) -> None:
    """Guards the copies: nobody is let go without another node with room, nor for a moment, nor the last one."""

    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        for name in full:
            fill(c, name, refuses_ms)
        await settled(c)
        assert c.now("a") == before

    run(tmp_path, 3, body)
