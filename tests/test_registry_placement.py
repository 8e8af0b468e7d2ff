"""Placement: different nodes, different machines where avoidable, evenly loaded, the same for the same input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspm.errors import UnavailableError, UsageError
from dspm.netram.messages import DatasetEntry, MemberEntry, NodeEntry, SetEntry
from dspm.netram.placement import Load, load_of, place


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[NodeEntry], frozenset[str], int]:
    count = draw(st.integers(1, 8))
    nodes = [NodeEntry(f"n{i}", f"h:{i + 1}", f"m{draw(st.integers(0, 4))}") for i in range(count)]
    answering = frozenset(draw(st.sets(st.sampled_from([n.name for n in nodes]))))
    return nodes, answering, draw(st.integers(1, count))


def _set(i: int, members: tuple[str, ...]) -> SetEntry:
    return SetEntry(i, 1, "active", members[0], [MemberEntry(m, 1) for m in members])


@given(clusters(), st.dictionaries(st.sampled_from([f"n{i}" for i in range(8)]), st.integers(0, 5)))
def test_members_are_different_and_spread(
    cluster: tuple[list[NodeEntry], frozenset[str], int], primaries: dict[str, int]
) -> None:
    nodes, answering, copies = cluster
    load = Load()
    load.primaries.update(primaries)
    if len(answering) < copies:
        with pytest.raises(UnavailableError):
            place(nodes, answering, load, copies)
        return
    placed = place(nodes, answering, load, copies)
    assert placed == place(nodes, answering, load, copies)
    assert len(set(placed.members)) == copies
    assert set(placed.members) <= answering
    machine = {n.name: n.machine for n in nodes}
    usable = {machine[n] for n in answering}
    assert len({machine[n] for n in placed.members}) == min(copies, len(usable))
    assert primaries.get(placed.primary, 0) == min(primaries.get(n, 0) for n in answering)


@given(clusters(), st.sets(st.sampled_from([f"n{i}" for i in range(8)])))
def test_full_disks_are_left_out_unless_a_copy_needs_them(
    cluster: tuple[list[NodeEntry], frozenset[str], int], some: set[str]
) -> None:
    nodes, answering, copies = cluster
    full = frozenset(some) & answering
    if len(answering) < copies:
        return
    placed = place(nodes, answering, Load(), copies, full)
    assert (placed.primary in full) == (answering == full), "who serves has room, where somebody has"
    machine = {n.name: n.machine for n in nodes}
    used = [machine[n] for n in placed.members]
    assert len(set(used)) == min(copies, len({machine[n] for n in answering})), "machines come first"
    roomy = {n for n in answering - full if n not in placed.members}
    for taken in (n for n in placed.members if n in full):
        others = [m for n, m in zip(placed.members, used, strict=True) if n != taken]
        spread = others.count(machine[taken])
        assert all(others.count(machine[n]) > spread for n in roomy), f"{taken} could have been another one"


@given(st.integers(1, 6), st.integers(1, 40))
def test_many_groups_are_even(count: int, groups: int) -> None:
    nodes = [NodeEntry(f"n{i}", f"h:{i + 1}", f"m{i}") for i in range(count)]
    copies = min(2, count)
    load = Load()
    for i in range(groups):
        placed = place(nodes, frozenset(n.name for n in nodes), load, copies)
        load.add(_set(i, placed.members))
    assert max(load.primaries.values()) - min(load.primaries[n.name] for n in nodes) <= 1
    assert max(load.members.values()) - min(load.members[n.name] for n in nodes) <= 2


def test_load_counts_groups_by_set() -> None:
    entry = _set(7, ("a", "b"))
    datasets = [DatasetEntry(f"d{i}", i, i, 7, "memory", 2, 1) for i in range(3)]
    load = load_of([entry], datasets)
    assert (load.primaries["a"], load.primaries["b"], load.members["a"], load.members["b"]) == (3, 0, 3, 3)


@pytest.mark.parametrize("copies", [0, 2])
def test_more_copies_than_nodes(copies: int) -> None:
    with pytest.raises(UsageError):
        place([NodeEntry("a", "h:1", "m")], frozenset("a"), Load(), copies)
