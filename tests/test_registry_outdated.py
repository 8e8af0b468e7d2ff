"""A registry whose state is older than what nodes know (a backup that was put back), and nodes that cannot take its
word over. It notices, decides nothing, and says so; a node that is behind is done without until it follows again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from registry_cluster import Cluster, names, run
from test_registry_service import registry, until

from dspm.errors import DspmError, UnavailableError
from dspm.netram.messages import CreateOptions, MemberEntry, NodeEntry, SetEntry
from dspm.netram.registry import listening, membership
from dspm.netram.registry.pace import GRACE_S
from dspm.netram.registry.pulse import BEHIND_S
from dspm.netram.viewsum import view_sum


def start(c: Cluster, path: Path, state: bytes) -> None:
    """A registry with that state takes the place of the one that was stopped."""
    (path / "registry.db").write_bytes(state)
    c.service = registry(path, failover=True)
    c.service.start()


async def refused(c: Cluster) -> None:
    """Whatever asks for a decision is told why there is none, and what to do; nothing changes."""
    service, member = c.service, c.service.membership
    before = service.catalog.view(), dict(service.catalog.datasets), set(service.catalog.draining)
    moved = NodeEntry("n1", "127.0.0.1:9", "n1@local")
    s = c.now("a")
    decisions: list[Callable[[], Any]] = [
        lambda: service.locate("new", CreateOptions()),
        lambda: service.locate("unknown", None),
        lambda: service.remove("a"),
        lambda: service.rename("a", "b"),
        lambda: service.switchover("a", None),
        lambda: service.catalog.put_node(moved),
        lambda: service.catalog.put_node(NodeEntry("n9", "127.0.0.1:9", "n9@local")),
        lambda: member.drain("n1"),
        lambda: member.undrain("n1"),
        lambda: service.catalog.change([msgspec.structs.replace(s, generation=s.generation + 1)]),
        lambda: service.catalog.freed("n1", [1]),
    ]
    for decide in decisions:
        with pytest.raises(UnavailableError, match="older than what nodes know") as failed:
            waits = decide()
            if waits is not None:
                await waits
        assert "registry.db" in failed.value.hint
    assert before == (service.catalog.view(), dict(service.catalog.datasets), set(service.catalog.draining))


def test_a_state_that_is_too_old_changes_nothing(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        backup = (tmp_path / "registry.db").read_bytes()
        await c.set_of("b", copies=3)
        await c.service.stop()
        newest = (tmp_path / "registry.db").read_bytes()
        await c.kill("n2")
        c.node("n1").view = {**c.node("n1").view, "version": 1, "sets": []}  # it has not heard of b; n3 has
        start(c, tmp_path, backup)
        before = c.now("a")
        pulse, clock = c.service.membership.pulse("n2"), c.service.membership.clock
        await until(lambda: pulse.at(clock()).silent_s > 1.5)
        assert c.now("a") == before and set(c.service.catalog.ahead) == {"n3"}
        await refused(c)
        assert "n3" in c.service.catalog.trouble
        await until(lambda: c.node("n1").trouble == c.service.catalog.trouble != "")
        await c.service.stop()
        start(c, tmp_path, newest)
        assert (await c.becomes("a", "n1", "n3")).generation > before.generation
        await until(lambda: c.node("n3").trouble == "")

    run(tmp_path, 3, body)


def test_a_version_that_nodes_have_with_other_content_is_noticed(tmp_path: Path) -> None:
    """Guards against a state that caught up in number: restored, it decided something before it heard those who know
    better, and went on from its own sets."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        backup = (tmp_path / "registry.db").read_bytes()
        await c.set_of("b", copies=3)
        await until(lambda: all(n.view["version"] == c.service.catalog.view_version for n in c.nodes))
        version = c.service.catalog.view_version
        await c.service.stop()
        (tmp_path / "registry.db").write_bytes(backup)
        c.service = registry(tmp_path, failover=True)
        c.service.catalog.put_node(NodeEntry("n4", "127.0.0.1:9", "n4@local"))
        assert c.service.catalog.view_version == version
        c.service.start()
        await until(lambda: set(c.service.catalog.ahead) == {"n1", "n2", "n3"})
        await refused(c)
        heard = [s["id"] for n in c.nodes for s in n.view["sets"]]
        assert len(heard) == 6, "the nodes keep both sets"

    run(tmp_path, 3, body)


def test_a_view_that_contradicts_what_a_node_knows(tmp_path: Path) -> None:
    """Guards against a state that overtook the nodes in number: the node that sees another configuration of a
    generation refuses it, and that is as good as a newer version."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        c.node("n3").contradicts = "generation 1 of set 7 is known with other members"
        c.service.catalog.put_node(NodeEntry("n4", "127.0.0.1:9", "n4@local"))
        c.service._poke()
        await until(lambda: "contradicts" in c.service.catalog.trouble)
        for _ in range(3):  # also while it is dialled again and again
            heard = c.node("n3").heard.count("view")
            await refused(c)
            await until(lambda seen=heard: c.node("n3").heard.count("view") > seen)  # type: ignore[misc]
        c.node("n3").contradicts = ""
        await until(lambda: not c.service.catalog.ahead)
        await c.set_of("b")

    run(tmp_path, 3, body)


def test_a_node_that_knows_better_and_comes_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the start with an old state: the only node that answers knows nothing newer than that state, and the one
    that was dropped since would be made the set's only member."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        backup = (tmp_path / "registry.db").read_bytes()
        n2 = await c.kill("n2")
        await c.becomes("a", "n1", "n3")
        await c.service.stop()
        n1, n3 = await c.kill("n1"), await c.kill("n3")
        old = await c.back(n2)
        old.view = n2.view
        monkeypatch.setattr(listening, "LISTEN_S", 3600.0)
        start(c, tmp_path, backup)
        before = c.now("a")
        clock = c.service.membership.clock
        began = clock()
        await until(lambda: c.service._peers["n2"].store is not None and clock() > began + 2 * GRACE_S)
        assert c.now("a") == before, "nothing is decided"
        for decide in (lambda: c.service.catalog.drain("n2", True), lambda: c.service.catalog.remove("a")):
            with pytest.raises(UnavailableError, match="just started, and has not heard n1, n3 yet"):
                decide()
        waits = asyncio.create_task(c.service.locate("b", CreateOptions(copies=1)))
        (await c.back(n3)).view = n3.view
        with pytest.raises(UnavailableError, match="older than what nodes know"):
            await waits
        assert c.now("a") == before and set(c.service.catalog.ahead) == {"n3"}
        await n1.stop()

    run(tmp_path, 3, body)


def test_nodes_that_do_not_come_are_not_waited_for_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(c: Cluster) -> None:
        await c.set_of("a")
        await c.service.stop()
        await c.kill("n2")
        monkeypatch.setattr(listening, "LISTEN_S", 0.5)
        start(c, tmp_path, (tmp_path / "registry.db").read_bytes())
        assert (await c.set_of("b", copies=1)).primary in ("n1", "n3"), "who asks at once is answered when it may be"
        await c.becomes("a", "n1", "n3")

    run(tmp_path, 3, body)


def test_a_registry_that_starts_again_is_not_old(tmp_path: Path) -> None:
    """The same state at another address makes the same checksum."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        await c.kill("n2")
        await c.becomes("a", "n1", "n3")
        await c.service.stop()
        c.service = registry(tmp_path, failover=True)
        c.service.catalog.url = "http://elsewhere"
        c.service.start()
        await until(lambda: c.service._peers["n1"].store is not None and c.service._peers["n3"].store is not None)
        assert c.service.catalog.ahead == {}
        await c.set_of("b")

    run(tmp_path, 3, body)


def test_the_checksum_is_the_one_that_rust_makes() -> None:
    def m(letters: str) -> list[MemberEntry]:
        return [MemberEntry(c, ord(c)) for c in letters]

    entry = SetEntry(7, 2, "active", "a", m("ab"), m("c"), m("ab"))
    assert view_sum(3, [NodeEntry("a", "h:1", 'mü"')], [entry]) == 0xADDD_6958_2A9E_AB1C


@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_node_that_cannot_take_the_view_over_is_done_without(tmp_path: Path, victim: str) -> None:
    """Guards against a set that is never active because one of its members has a full disk and answers heartbeats."""

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        c.node(victim).cannot_take = "no space left on device"
        await c.kill("n3" if victim == "n1" else "n4")  # nobody of the set: nothing changes by that
        before = c.now("a")
        c.service.catalog.put_node(NodeEntry("n5", "127.0.0.1:9", "n5@local"))  # a newer view
        c.service._poke()
        other = "n2" if victim == "n1" else "n1"
        spare = "n4" if victim == "n1" else "n3"
        await until(lambda: victim not in names(c.now("a").members))
        heard = c.service.membership.pulse(victim).at(c.service.membership.clock())
        assert heard.behind_s > BEHIND_S and heard.silent_s < BEHIND_S, "it answers all the time"
        assert (await c.becomes("a", other, spare)).generation > before.generation
        state = next(n for n in c.service.node_states() if n["name"] == victim)
        assert state["state"] == "behind"
        assert "cannot take over the newest view" in state["why"] and "no space" in state["why"]
        c.node(victim).cannot_take = ""
        await until(lambda: all(n["state"] != "behind" for n in c.service.node_states()))
        await c.kill(spare)
        await c.becomes("a", other, victim)

    run(tmp_path, 4, body)


def test_the_last_member_is_waited_for_though_it_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine this loop is late time and again, and would forget since when they are behind.
    monkeypatch.setattr(membership, "LATE_S", 60.0)

    async def body(c: Cluster) -> None:
        await c.set_of("a")
        for n in ("n1", "n2"):
            c.node(n).cannot_take = "no space left on device"
        c.service.catalog.put_node(NodeEntry("n5", "127.0.0.1:9", "n5@local"))
        c.service._poke()
        before = c.now("a")
        clock = c.service.membership.clock
        await until(
            lambda: all(c.service.membership.pulse(n).at(clock()).behind_s > BEHIND_S + 1 for n in ("n1", "n2"))
        )
        assert c.now("a") == before
        with pytest.raises(DspmError):
            await c.set_of("b", copies=2)  # n3 alone may be given something
        for n in ("n1", "n2"):
            c.node(n).cannot_take = ""
        await until(lambda: all(c.node(n).view["version"] == c.service.catalog.view_version for n in ("n1", "n2")))
        assert names((await c.set_of("a")).members) == ["n1", "n2"]

    run(tmp_path, 3, body)
