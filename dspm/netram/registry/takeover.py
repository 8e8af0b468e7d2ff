"""A registry whose state is an old one goes on from what the nodes know (docs/decisions/0019).

Pure. What nodes know are their views and catalogs. The view of the highest version is the base. That none is newer, as
far as anybody was ever served by it, is certain when everybody whom its sets name (members, joining nodes, the last
active set) was heard with the memory that is named, and knows nothing newer and nothing that contradicts it: a
generation that was active was known to all its members, and one of them was of the last active set before it.

Invariants: every set goes on from its last active set in a new generation, and the view in a new version, both `LEAP`
above all that was heard of: what was decided and nobody heard is never mistaken for what is decided from here on. No
dataset goes because it is missing somewhere: where one state knows it and another does not, nobody can tell here
whether it is new or removed. Only one whose id this state gave, and which is not in it, was removed for certain.

Fault model: nodes are away, came back without their memory, know other views of the same version; their catalogs are of
different times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import msgspec

from dspm.errors import ConflictError, UnavailableError
from dspm.netram.messages import DatasetEntry, MemberEntry, NodeEntry, SetEntry
from dspm.netram.names import NAME_MAX

LEAP = 1 << 20
"""More versions, and more generations of a set, than were ever decided and not heard of."""


@dataclass(frozen=True)
class Known:
    """What one side knows: a node, or this registry's own state."""

    version: int
    sum: int
    nodes: list[NodeEntry]
    sets: list[SetEntry]
    datasets: list[DatasetEntry]
    stores: Set[int] = frozenset()
    """The node's store id, and the former ones whose log it holds wholly."""


@dataclass(frozen=True)
class Takeover:
    """The state from here on. `base` is the node whose view it is, empty for the registry's own.

    `gained` are datasets that this state did not know; `doubtful` those that it knows, and no node of their set
    does: they may have been removed since. `aside` are (old, new) names of those whose name another one has by now.
    """

    base: str
    version: int
    nodes: list[NodeEntry]
    sets: list[SetEntry]
    datasets: list[DatasetEntry]
    gained: list[str]
    doubtful: list[str]
    aside: list[tuple[str, str]]


def certain(own: Known, known: Mapping[str, Known], given: Set[int]) -> Takeover:
    """What to go on from, if there is no doubt about it. `given` are the ids that this state ever gave.

    Raises:
        ConflictError: two sides know what contradicts each other; an operator has to say which to go on from.
        UnavailableError: nodes that may know something newer have not been heard.
    """
    base = _newest(known)
    if own.version >= known[base].version:
        raise ConflictError(f"this state went on by itself, and {base} knows another version {known[base].version}")
    for name, other in (("this state", own), *sorted(known.items())):
        _check_follows(other, known[base], name, base)
    new = going_on(own, known, given, base)
    used = {d.set for d in new.datasets}
    silent: set[str] = set()
    for s in (s for s in known[base].sets if s.id in used):
        silent |= {m.node for m in _named(s) if m.node not in known or m.store not in known[m.node].stores}
    if silent:
        missing = ", ".join(sorted(silent))
        raise UnavailableError(f"{missing} may know more, and was not heard with the memory that its sets name")
    return new


def going_on(own: Known, known: Mapping[str, Known], given: Set[int], base: str) -> Takeover:
    """The state that goes on from what that node knows; from the own one if it has no name."""
    chosen = known[base] if base else own
    everybody = [chosen, *sorted(known.values(), key=lambda k: -k.version), own]
    datasets, aside = _merged(everybody, _removed(own, given))
    ids, held = {d.dataset for d in own.datasets}, _by_node(known)
    sets = _sets(everybody, {d.set for d in datasets})
    highest: dict[int, int] = {}
    for s in (s for k in everybody for s in k.sets):
        highest[s.id] = max(s.generation, highest.get(s.id, 0))
    at = {s.id: {m.node for m in _named(s)} for s in sets}
    # Those of whose set somebody was heard, and nobody there knows them.
    doubtful = [
        d.name for d in datasets if (there := at[d.set] & held.keys()) and not any(d.dataset in held[n] for n in there)
    ]
    return Takeover(
        base=base,
        version=max(k.version for k in everybody) + LEAP,
        nodes=_all_nodes(everybody, chosen, sets),
        sets=[_anew(s, highest[s.id]) for s in sets],
        datasets=sorted(datasets, key=lambda d: d.name),
        gained=sorted(d.name for d in datasets if d.dataset not in ids),
        doubtful=sorted(doubtful),
        aside=aside,
    )


def _newest(known: Mapping[str, Known]) -> str:
    return max(sorted(known), key=lambda n: known[n].version)


def _check_follows(older: Known, newest: Known, name: str, base: str) -> None:
    """Raises ConflictError when the newest view cannot have come from that one."""
    text = f"{name} and {base} know what cannot be of one history: "
    if older.version == newest.version and older.sum != newest.sum:
        raise ConflictError(text + f"two versions {newest.version} of the view")
    after = {s.id: s for s in newest.sets}
    for s in older.sets:
        new = after.get(s.id)
        if new is None or new.generation > s.generation:
            continue
        same = new.primary == s.primary and _nodes(new) == _nodes(s)
        if new.generation < s.generation or not same:
            raise ConflictError(text + f"generation {s.generation} of the set {s.id:016x}")


def _nodes(entry: SetEntry) -> set[str]:
    return {m.node for m in (*entry.members, *entry.joining)}


def _named(entry: SetEntry) -> list[MemberEntry]:
    """Those of whom one knows every later generation that served."""
    return [*entry.members, *entry.joining, *entry.last_active]


def _removed(own: Known, given: Set[int]) -> Set[int]:
    """Ids of what was here once, and was removed. Those that this state never gave are of later."""
    return given - {d.dataset for d in own.datasets}


def _by_node(known: Mapping[str, Known]) -> dict[str, set[int]]:
    return {n: {d.dataset for d in k.datasets} for n, k in known.items()}


def _merged(everybody: Iterable[Known], removed: Set[int]) -> tuple[list[DatasetEntry], list[tuple[str, str]]]:
    """All datasets that somebody knows, each by the first side that does; and those that could not keep their names."""
    found: dict[int, DatasetEntry] = {}
    for d in (d for k in everybody for d in k.datasets):
        if d.dataset not in removed:
            found.setdefault(d.dataset, d)
    names: dict[str, DatasetEntry] = {}
    aside = []
    for d in found.values():
        name = d.name
        while name in names:
            name = _beside(name, d.dataset)
        if name != d.name:
            aside.append((d.name, name))
        names[name] = msgspec.structs.replace(d, name=name)
    return list(names.values()), aside


def _beside(name: str, dataset: int) -> str:
    """Another name for a dataset whose own is taken."""
    end = f"~{dataset:016x}"
    kept = name.encode()[: NAME_MAX - len(end)].decode(errors="ignore")
    return kept + end


def _sets(everybody: Iterable[Known], used: Set[int]) -> list[SetEntry]:
    """Those that hold something, each as the first side knows it that does."""
    found: dict[int, SetEntry] = {}
    for s in (s for k in everybody for s in k.sets):
        if s.id in used:
            found.setdefault(s.id, s)
    return [found[i] for i in sorted(found)]


def _all_nodes(everybody: Iterable[Known], chosen: Known, sets: Iterable[SetEntry]) -> list[NodeEntry]:
    """Those of the base, and whom else a set names."""
    found = {n.name: n for n in chosen.nodes}
    wanted = {m.node for s in sets for m in (*_named(s), *s.dropped)}
    for n in (n for k in everybody for n in k.nodes):
        if n.name in wanted:
            found.setdefault(n.name, n)
    return [found[name] for name in sorted(found)]


def _anew(entry: SetEntry, highest: int) -> SetEntry:
    """Its last active set begins a generation. Who was joining joins again, and keeps what it has until then."""
    members = entry.last_active or entry.members
    nodes = [m.node for m in members]
    others = {m.node: m for m in (*entry.dropped, *entry.joining, *entry.members) if m.node not in nodes}
    return msgspec.structs.replace(
        entry,
        generation=highest + LEAP,
        state="activating",
        primary=entry.primary if entry.primary in nodes else nodes[0],
        members=members,
        joining=[],
        last_active=members,
        dropped=list(others.values()),
    )
