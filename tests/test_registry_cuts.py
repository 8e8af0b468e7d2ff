"""Two members that the registry hears both, and that do not hear one another: the primary reports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peer import FakeNode
from registry_cluster import Cluster, names, run
from test_registry_service import until

from dspm.errors import ConflictError
from dspm.netram.messages import SetEntry
from dspm.netram.registry.pulse import Way


def report(entry: SetEntry, suspect: FakeNode, lapsed_ms: int = 500) -> dict[str, Any]:
    told = {"set": entry.id, "generation": entry.generation}
    return {"op": "suspect", **told, "node": suspect.name, "store": suspect.store, "lapsed_ms": lapsed_ms}


async def pause_is_over(c: Cluster) -> None:
    """A set changes once in a while only."""
    pace, clock = c.service.membership._pace(c.now("a")), c.service.membership.clock
    await until(lambda: pace.may_change(clock()))


async def cut(c: Cluster, suspect: str) -> SetEntry:
    """The set's primary says again and again, as nodes do, that it does not hear that node, until it is dropped."""
    await pause_is_over(c)
    entry = c.now("a")
    while c.now("a").generation == entry.generation:
        assert await c.node(entry.primary).ask_registry(report(entry, c.node(suspect))) == {"done": True}
        await until(lambda: True)
    return c.now("a")


def test_the_suspect_is_dropped_and_a_spare_taken(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        after = await cut(c, "n2")
        assert (after.primary, names(after.members), names(after.joining)) == ("n1", ["n1"], ["n3"])
        await c.becomes("a", "n1", "n3")
        assert c.service.node_states()[1]["state"] == "serving", "it answers the registry"

    run(tmp_path, 3, body)


def test_it_is_taken_back_when_the_cut_is_forgotten(tmp_path: Path) -> None:
    """Guards against a member that joins and is dropped again without end: not before 10 s are over."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        await cut(c, "n2")
        alone = await c.becomes("a", "n1")
        clock = c.service.membership.clock
        await pause_is_over(c)
        for _ in range(5):
            c.service._on_change()
        assert c.now("a") == alone and names(alone.dropped) == ["n2"]
        until_then = max(x.until for x in c.service.membership._cuts._pairs._pauses.values())
        assert until_then > clock()
        await c.becomes("a", "n1", "n2")
        assert clock() >= until_then

    run(tmp_path, 2, body)


def test_what_is_no_reason(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        before = await c.set_of("a")
        n1, n2, n3 = c.nodes
        await pause_is_over(c)
        with pytest.raises(ConflictError):
            await n2.ask_registry(report(before, n1))  # not the primary
        with pytest.raises(ConflictError):
            await n1.ask_registry(report(before, n3))  # no member
        with pytest.raises(ConflictError):
            await n1.ask_registry(report(before, n1))  # itself
        with pytest.raises(ConflictError):
            await n1.ask_registry({**report(before, n2), "store": 7})
        with pytest.raises(ConflictError):
            await n1.ask_registry({**report(before, n2), "generation": before.generation + 1})
        assert await n1.ask_registry(report(before, n2, lapsed_ms=399)) == {"done": True}  # suspect_after is 400 ms
        c.service._on_change()
        assert c.now("a") == before
        pulse, clock = c.service.membership.pulse("n2"), c.service.membership.clock
        n2.deaf = True
        await until(lambda: pulse.at(clock()).way is not Way.HEARD)
        c.service.membership.suspect("n1", before.id, before.generation, before.members[1], 9.0)
        assert c.now("a") == before, "what the registry does not hear it judges by itself"
        assert not c.service.membership._cuts.pairs(clock())

    run(tmp_path, 3, body)
