"""What operators ask of the registry: nodes are drained, primaries handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from peer import FakeNode
from registry_cluster import Cluster, names, run
from test_registry_service import KEY, registry, until

from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError


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


def test_a_node_is_removed_when_it_is_drained_and_gone(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        service = c.service
        await c.set_of("a")
        await c.set_of("b", copies=1)
        await service.remove("b")  # its set's record stays

        async def refused(why: str, kind: type[DspmError] = ConflictError) -> None:
            before = service.catalog.view()
            with pytest.raises(kind, match=why):
                await service.remove_node("n1")
            assert service.catalog.view() == before

        with pytest.raises(NotFoundError, match="no node named 'n9'"):
            await service.remove_node("n9")
        await refused("n1 is not drained")
        for n in c.nodes:
            n.joins = False
        service.membership.drain("n1")
        await refused("1 replica set still names n1")
        for n in c.nodes:
            n.joins = True
            await n.report()
        await until(lambda: "n1" not in names([*c.now("a").last_active, *c.now("a").dropped]))
        await refused("n1 still answers")
        n1 = await c.kill("n1")
        await until(lambda: service.node_states()[0]["state"] == "down")
        await service.remove_node("n1")
        assert sorted(service.catalog.nodes) == ["n2", "n3"] and service.catalog.draining == set()
        assert all("n1" not in names([*s.members, *s.dropped]) for s in service.catalog.sets.values())
        assert registry(tmp_path).catalog.view() == service.catalog.view(), "written"
        await until(lambda: [x["name"] for x in c.node("n2").view["nodes"]] == ["n2", "n3"])
        back = FakeNode("n1", KEY, "c", n1.store)
        c.nodes.remove(n1)
        await c.add(back)
        assert sorted(names((await c.set_of("new", copies=3)).members)) == ["n1", "n2", "n3"]

    run(tmp_path, 3, body)
