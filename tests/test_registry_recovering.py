"""A set goes on with a loss: what the registry allows, and which node is the best to go on from."""

from __future__ import annotations

from pathlib import Path

import pytest
from registry_cluster import Cluster, names, run
from test_registry_driver import GONE, HERE, NEW, OFF, SHORT, a_set, cluster, member
from test_registry_service import until

from dspm.errors import ConflictError, DspmError, UnavailableError
from dspm.netram import recovery
from dspm.netram.messages import GroupStatus, MemberEntry
from dspm.netram.recovery import Holder
from dspm.netram.registry.pulse import Heard
from dspm.netram.registry.recovering import recover

ENTRY = a_set("ab", "c", None, "d")
BACK = Heard(2, former=frozenset({1}))


def test_it_goes_on_from_one_node_and_everybody_else_is_dropped() -> None:
    for source, heard in (("c", {"c": HERE}), ("d", {"d": HERE, "c": HERE})):
        new = recover(ENTRY, 5, member(source), cluster(**{"a": GONE, "b": OFF, **heard}))
        assert (new.generation, new.state, new.primary, new.history) == (6, "activating", source, ENTRY.history + 1)
        assert new.members == new.last_active == [member(source)] and new.joining == []
        assert {m.node for m in new.dropped} == set("abcd") - {source}
    new = recover(ENTRY, 5, member("b", 2), cluster(a=GONE, b=BACK))
    assert new.members == [member("b", 2)] and {m.node for m in new.dropped} == set("acd")


@pytest.mark.parametrize(
    ("source", "heard", "kind", "said"),
    [
        (member("d"), {"a": HERE, "b": GONE, "d": HERE}, ConflictError, "a answers and holds everything"),
        (member("d"), {"a": GONE, "b": SHORT, "d": HERE}, UnavailableError, "not clear yet whether b answers"),
        (member("d"), {"a": GONE, "b": GONE, "d": GONE}, UnavailableError, "d does not answer"),
        (member("d", 2), {"a": GONE, "b": GONE, "d": HERE}, UnavailableError, "with the store id 0000000000000002"),
        (member("d", 2), {"a": GONE, "b": GONE, "d": NEW}, ConflictError, "d holds nothing of the set"),
        (member("e"), {"a": GONE, "b": GONE, "e": HERE}, ConflictError, "e holds nothing of the set"),
    ],
)
def test_what_is_refused(source: MemberEntry, heard: dict[str, Heard], kind: type[DspmError], said: str) -> None:
    with pytest.raises(kind, match=said):
        recover(ENTRY, 5, source, cluster(**heard))
    with pytest.raises(ConflictError, match="in generation 5 by now"):
        recover(ENTRY, 4, source, cluster(**heard))


def holder(node: str, role: str = "dropped", whole: bool = True, **lsns: tuple[int, int]) -> Holder:
    has = {int(g[1:]): GroupStatus(int(g[1:]), written=w, lsn=lsn, whole=whole) for g, (w, lsn) in lsns.items()}
    return Holder(node, role, "answers", 1, has)


@pytest.mark.parametrize(
    ("holders", "expected"),
    [
        ([holder("a", g1=(1, 9)), holder("b", g1=(1, 10))], "b"),
        ([holder("a", g1=(2, 9)), holder("b", g1=(1, 10))], "a"),
        ([holder("a", g1=(2, 9)), holder("b", "joining", False, g1=(2, 12))], "a"),
        ([holder("a", g1=(2, 9)), holder("b", "joining", g1=(2, 9))], "b"),
        ([holder("a", g1=(1, 9), g2=(1, 9), g3=(1, 1)), holder("b", g1=(1, 8), g2=(1, 8), g3=(1, 90))], "a"),
        ([holder("a"), holder("b", g1=(1, 1))], "b"),
        ([Holder("a", "complete", "is gone"), holder("b", whole=False, g1=(1, 1))], None),
    ],
)
def test_which_is_the_best(holders: list[Holder], expected: str | None) -> None:
    """The newest record of most groups; one that lacks pages is none."""
    best = recovery._best([h for h in holders if h.is_source], [1, 2, 3])
    assert (best.node if best else None) == expected


def test_it_is_written_and_the_old_members_join(tmp_path: Path) -> None:
    async def body(c: Cluster) -> None:
        entry = await c.set_of("a", copies=3)
        n3 = await c.kill("n3")
        await until(lambda: names(c.now("a").dropped) == ["n3"] and c.now("a").state == "active")
        n1, n2 = await c.kill("n1"), await c.kill("n2")
        await c.back(n3)
        await until(lambda: c.service.node_states()[2]["state"] == "serving")
        await until(lambda: all(s["state"] == "down" for s in c.service.node_states()[:2]))
        down, source = c.now("a"), MemberEntry("n3", n3.store)
        with pytest.raises(ConflictError):
            await c.service.recover(down.id, down.generation - 1, source)
        assert c.now("a") == down
        after = await c.service.recover(down.id, down.generation, source)
        assert (after.state, after.members, after.history) == ("active", [source], entry.history + 1)
        assert sorted(names(after.dropped)) == ["n1", "n2"]
        await c.back(n1)
        await c.back(n2)
        whole = await c.becomes("a", "n1", "n2", "n3")
        assert whole.primary == "n3" and whole.history == after.history and whole.dropped == []

    run(tmp_path, 3, body)
