"""What is left of a replica set that is down, and from which node it would lose least.

The nodes that the set names are asked what they hold; the registry says which answer, and what they were before. A
source answers, and has all pages of every group that it knows: a complete member that came back from its log, a dropped
one, a joining one whose copy was finished. The best one has the newest record of most groups; records are newer by the
generation in which they were first sent, then by LSN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspm.netram.messages import DatasetEntry, GroupStatus, MemberEntry, SetEntry
from dspm.netram.status import Survey

Rank = tuple[int, int]


@dataclass(frozen=True)
class Holder:
    """A node that the set names. `has` is None where it does not answer for what it held."""

    node: str
    role: str
    """complete, joining or dropped."""
    state: str
    """In words: whether it answers, and with what."""
    store: int = 0
    has: Mapping[int, GroupStatus] | None = None

    @property
    def is_source(self) -> bool:
        """True when a set could go on from it alone."""
        return self.has is not None and all(g.whole for g in self.has.values())

    def rank(self, group: int) -> Rank:
        """Its newest record of a group."""
        g = (self.has or {}).get(group)
        return (g.written, g.lsn) if g else (0, 0)


@dataclass(frozen=True)
class Loss:
    """A dataset, the LSN up to which the source has it, and the highest that any node which answers knows of."""

    dataset: str
    lsn: int
    known: int


@dataclass(frozen=True)
class Plan:
    """A set that is down. Without a source nothing of it is left at the nodes that answer."""

    entry: SetEntry
    datasets: list[DatasetEntry]
    holders: list[Holder]
    source: Holder | None = None
    losses: list[Loss] = field(default_factory=list)

    @property
    def given_up(self) -> list[str]:
        """Nodes whose copies are complete, and lost for the set when it goes on without them."""
        source = self.source.node if self.source else ""
        return [m.node for m in self.entry.last_active if m.node != source]

    def as_json(self) -> dict[str, Any]:
        """What `dspm recover --json` says of it."""
        return {
            "set": f"{self.entry.id:016x}",
            "generation": self.entry.generation,
            "datasets": [d.name for d in self.datasets],
            "nodes": [self._node(h) for h in self.holders],
            "source": self.source.node if self.source else None,
            "given_up": self.given_up if self.source else [],
            "losses": [{"dataset": x.dataset, "lsn": x.lsn, "known_lsn": x.known} for x in self.losses],
        }

    def _node(self, h: Holder) -> dict[str, Any]:
        lsns = [{"dataset": d.name, "lsn": h.has[d.group].lsn} for d in self.datasets if h.has and d.group in h.has]
        return {"node": h.node, "role": h.role, "state": h.state, "is_source": h.is_source, "holds": lsns}


def plans(survey: Survey, nodes: list[dict[str, Any]], wanted: set[int] | None = None) -> list[Plan]:
    """All sets that are down, or those of the wanted ones. `nodes` is what the registry says of its nodes."""
    down = {s.id: s for s in survey.view.sets if survey.is_down(s) and (wanted is None or s.id in wanted)}
    datasets: dict[int, list[DatasetEntry]] = {i: [] for i in down}
    for page in survey.pages(lambda d: d.set in down):
        for d in page.datasets:
            datasets[d.set].append(d)
    known = {str(n["name"]): n for n in nodes}
    return [_plan(survey, known, s, datasets[i]) for i, s in sorted(down.items()) if datasets[i]]


def _plan(survey: Survey, nodes: Mapping[str, dict[str, Any]], entry: SetEntry, datasets: list[DatasetEntry]) -> Plan:
    groups = [d.group for d in datasets]
    roles = {m.node: (role, m) for role, m in _named(entry)}
    holders = [_holder(survey, nodes.get(m.node, {}), role, m, groups) for role, m in roles.values()]
    source = _best([h for h in holders if h.is_source], groups)
    if source is None:
        return Plan(entry, datasets, holders)
    newest = {g: max(h.rank(g)[1] for h in holders) for g in groups}
    losses = [Loss(d.name, source.rank(d.group)[1], newest[d.group]) for d in datasets]
    return Plan(entry, datasets, holders, source, losses)


def _named(entry: SetEntry) -> list[tuple[str, MemberEntry]]:
    """In the order in which later ones say more of a node that has several parts."""
    lists = (("dropped", entry.dropped), ("joining", entry.joining), ("complete", entry.last_active))
    return [(role, m) for role, members in lists for m in members]


def _holder(survey: Survey, node: Mapping[str, Any], role: str, member: MemberEntry, groups: list[int]) -> Holder:
    store = survey.store_of(member.node)
    if store is None or node.get("store") != store:
        return Holder(member.node, role, _silence(node))
    if store != member.store and member.store not in node.get("former", []):
        return Holder(member.node, role, "answers, without its memory and without all of its log", store)
    has = survey.held(member.node, groups)
    if has is None:
        return Holder(member.node, role, "stopped answering")
    whole = all(g.whole for g in has.values())
    how = "its memory" if store == member.store else "what its log holds"
    lacks = "" if whole else ", and lacks pages: its copy was not finished"
    return Holder(member.node, role, f"answers with {how}{lacks}", store, has)


def _silence(node: Mapping[str, Any]) -> str:
    if not node:
        return "is not known to the registry"
    silent = node.get("silent_s")
    last = "not heard since the registry started" if silent is None else f"last heard {silent:.0f} s ago"
    return f"{node.get('way', 'is silent')}, {last}"


def _best(sources: list[Holder], groups: list[int]) -> Holder | None:
    newest = {g: max((h.rank(g) for h in sources), default=(0, 0)) for g in groups}

    def worth(h: Holder) -> tuple[int, int, bool, str]:
        ranks = {g: h.rank(g) for g in groups}
        best = sum(r == newest[g] for g, r in ranks.items())
        return best, sum(lsn for _, lsn in ranks.values()), h.role == "joining", h.node

    return max(sources, key=worth, default=None)
