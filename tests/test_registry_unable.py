"""Nodes that have no room for a set: the set goes on without them, and leaves them alone for a while."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from registry_cluster import Cluster, names, run
from test_registry_driver import A_MOMENT_AGO, HERE, NOW, a_set, cluster, shape
from test_registry_service import until

from dspm.errors import ConflictError
from dspm.netram.messages import SetEntry
from dspm.netram.registry import driver
from dspm.netram.registry.driver import decide
from dspm.netram.registry.pulse import Heard
from dspm.netram.registry.unable import Unable

TABLE = [
    ("who joins is let go", a_set("a", "b"), "b", "a"),
    ("another takes its place", a_set("a", "b", None, "c"), "b", "a/c/c"),
    ("also while the set is activated", a_set("a", "b", "ac", "c", "activating"), "b", "ac"),
    ("nobody takes it in", a_set("a", "", None, "b"), "bc", "-"),
    ("a member stays one", a_set("ab"), "b", "-"),
]


@pytest.mark.parametrize(("what", "entry", "unable", "expected"), TABLE, ids=[t[0] for t in TABLE])
def test_table(what: str, entry: SetEntry, unable: str, expected: str) -> None:
    heard = {n: HERE for n in ("abc" if "c" in expected + unable else "ab")}
    if what == "who joins is let go":
        heard.pop("c", None)
    nodes = dataclasses.replace(cluster(**heard), unable=frozenset((entry.id, n) for n in unable))
    assert shape(decide(entry, 2, nodes, NOW, A_MOMENT_AGO)) == expected
    other = dataclasses.replace(nodes, unable=frozenset((entry.id + 1, n) for n in unable))
    if "-" not in expected:
        assert shape(decide(entry, 2, other, NOW, A_MOMENT_AGO)) != expected, "it has no room for another set only"


def test_it_is_left_alone_for_longer_each_time_or_until_it_is_started_again() -> None:
    unable, first, again = Unable(), Heard(1, boot=1), Heard(1, boot=2)
    now = 100.0
    for length in (10, 20, 40, 80, 160, 300, 300):
        assert unable.note(9, "b", first, now) and not unable.note(9, "b", first, now + 0.1)
        assert unable.places({"b": first}, now + length - 0.1) == {(9, "b")}
        assert unable.places({"b": first}, now + length) == unable.places({}, now) == frozenset()
        now += length + 5
    assert unable.note(9, "b", first, now)
    assert unable.places({"b": again}, now + 1) == frozenset(), "it may have more memory"
    assert unable.note(9, "b", again, now + 2), "and has not"
    assert unable.places({"b": again}, now + 300) == {(9, "b")}
    assert unable.note(8, "b", again, now + 2), "of another set"


def test_its_word_lets_it_go(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        entry = await c.set_of("a")
        for n in c.nodes:
            n.joins = False
        await c.kill("n2")
        await until(lambda: names(c.now("a").joining) == ["n3"] and c.now("a").state == "active")
        said = {"op": "cannot_join", "set": entry.id, "store": c.node("n3").store, "why": "its memory is in use"}
        with pytest.raises(ConflictError):
            await c.node("n3").ask_registry({**said, "generation": entry.generation})
        with pytest.raises(ConflictError):
            await c.node("n1").ask_registry({**said, "generation": c.now("a").generation, "store": c.node("n1").store})
        await c.node("n3").ask_registry({**said, "generation": c.now("a").generation})
        await until(lambda: names(c.now("a").joining) == [] and c.now("a").state == "active")
        gone = c.now("a")
        await asyncio.sleep(1)
        assert c.now("a") == gone, "nobody else is there, and it is left alone"
        assert not driver.is_settled(gone, 2, c.service.membership._cluster(c.service.membership._heard()))
        c.offset += 11
        await until(lambda: names(c.now("a").joining) == ["n3"])

    run(tmp_path, 3, body)
