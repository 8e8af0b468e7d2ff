"""When and how a replica set changes its members: the registry's part of reconfiguration (docs/decisions/0014).

Pure functions: a set's record, what is heard of the nodes and the time in, the next record out.

Invariants: a new generation's members are complete members of the last active set that answer with the store id that
is recorded, never none; one that answers so is never made joining; joining members enter by a new generation only and
become members in that same one; the last active set stays until the new primary has activated its generation. While
it is not certain of one of the set's nodes whether it answers, nothing changes.

Fault model: any node, and the registry itself, is gone, stopped or cut off for any time. A wrong suspicion costs an
activation and a copy to be made again, never a commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from dspm.errors import ConflictError
from dspm.netram.messages import MemberEntry, NodeEntry, SetEntry
from dspm.netram.placement import Load
from dspm.netram.registry.cuts import Pair, Suspicion
from dspm.netram.registry.pace import Pace
from dspm.netram.registry.pulse import Heard, Way
from dspm.netram.registry.unable import Place

FROZEN_GRACE_S = 5.0
"""How long a stopped member is waited for that no other node could replace."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes at one moment."""

    nodes: Mapping[str, NodeEntry]
    heard: Mapping[str, Heard]
    load: Load
    draining: frozenset[str] = frozenset()
    suspect_after_s: float = 0.4
    suspects: frozenset[Suspicion] = frozenset()
    cut: frozenset[Pair] = frozenset()
    unable: frozenset[Place] = frozenset()

    def suspects_of(self, entry: SetEntry) -> list[MemberEntry]:
        """Members and joining nodes that the set's primary just reported, and that answer here."""
        found = (m for m in (*entry.members, *entry.joining) if (entry.id, m) in self.suspects)
        return [m for m in found if m.node != entry.primary and standing(m, self) is Standing.SURE]


class Standing(Enum):
    """What a member is worth."""

    SURE = 1
    DOUBT = 2
    OUT = 3
    BEHIND = 4
    """It answers, and cannot take over what is decided."""

    @property
    def is_lost(self) -> bool:
        """True when a set has to go on without it."""
        return self in (Standing.OUT, Standing.BEHIND)


def standing(member: MemberEntry, cluster: Cluster, after_s: float | None = None) -> Standing:
    """Whether the member answers with the memory that it is recorded with."""
    heard = cluster.heard.get(member.node)
    if heard is None or heard.store not in (None, member.store):
        return Standing.OUT
    if heard.is_suspect(cluster.suspect_after_s if after_s is None else after_s):
        return Standing.OUT
    if heard.is_behind:
        return Standing.BEHIND
    return Standing.SURE if heard.way is Way.HEARD and heard.store is not None else Standing.DOUBT


def is_down(entry: SetEntry, cluster: Cluster) -> bool:
    """True when no complete member is left, nor can come to be heard in a moment."""
    return all(standing(m, cluster) is Standing.OUT for m in entry.last_active)


def is_settled(entry: SetEntry, copies: int, cluster: Cluster) -> bool:
    """True for most sets most of the time: there is nothing to decide. Cheap."""
    if entry.state != "active" or entry.joining or len(entry.members) != copies:
        return False
    for m in entry.members:
        heard = cluster.heard.get(m.node)
        if heard is None or not heard.is_there or heard.store != m.store or m.node in cluster.draining or heard.refuses:
            return False
    return not cluster.suspects_of(entry)


def decide(entry: SetEntry, copies: int, cluster: Cluster, now: float, pace: Pace) -> SetEntry | None:
    """The set's next record, or None when it stays as it is."""
    if any(_worth(m, entry, cluster) is Standing.DOUBT for m in {*entry.last_active, *entry.members, *entry.joining}):
        return None
    if not _complete(entry, cluster):
        return None
    lost = any(standing(m, cluster).is_lost for m in (*entry.members, *entry.joining))
    lost = lost or bool(cluster.suspects_of(entry)) or any((entry.id, m.node) in cluster.unable for m in entry.joining)
    lost = lost or any(m in entry.members for m in _relieved(entry, cluster))
    if entry.state == "activating":
        if pace.is_stuck(now):
            return _retry(entry, copies, cluster)
        return following(entry, copies, cluster, join=pace.may_add(now)) if lost and pace.may_change(now) else None
    if not (pace.may_remove(now) if lost else pace.may_change(now)):
        return None
    # Who joins already is not sent away: with somebody joining an active set has no failures behind it.
    new = following(entry, copies, cluster, join=pace.may_add(now))
    return None if _same(new.members, entry.members) and _same(new.joining, entry.joining) else new


def _worth(member: MemberEntry, entry: SetEntry, cluster: Cluster) -> Standing:
    """As :func:`standing`; but a complete member that is stopped and that nobody can replace is waited for."""
    heard = cluster.heard.get(member.node)
    if heard is not None and heard.way is Way.FROZEN and member in entry.members:
        named = {m.node for m in (*entry.last_active, *entry.members, *entry.joining)}
        if not _spares(named, cluster):
            return standing(member, cluster, max(FROZEN_GRACE_S, cluster.suspect_after_s))
    return standing(member, cluster)


def _complete(entry: SetEntry, cluster: Cluster) -> list[MemberEntry]:
    return [m for m in entry.last_active if standing(m, cluster) is Standing.SURE]


def following(
    entry: SetEntry, copies: int, cluster: Cluster, primary: str | None = None, join: bool = True
) -> SetEntry:
    """The next generation. `primary` is preferred to the one that is; without `join` it is made of members alone."""
    serving = primary or entry.primary
    complete = _within_reach(entry, cluster, serving, _relieved(entry, cluster))
    staying = [m for m in complete if m.node not in cluster.draining]
    # A node that is drained stays until others hold all copies; who is one too many goes.
    members = staying[:copies] if len(staying) >= copies else complete
    if serving not in {m.node for m in members} or (serving in cluster.draining and staying):
        serving = min(staying or members, key=lambda m: _burden(m, cluster)).node
    joining = _joining(entry, serving, copies - len(staying), cluster) if join else []
    kept = {m.node for m in members}
    former = {m.node: m for m in (*entry.dropped, *entry.last_active)}
    return msgspec.structs.replace(
        entry,
        generation=entry.generation + 1,
        state="activating",
        primary=serving,
        members=sorted(members, key=lambda m: m.node != serving),
        joining=joining,
        dropped=[m for m in former.values() if m.node not in kept],
    )


def _relieved(entry: SetEntry, cluster: Cluster) -> list[MemberEntry]:
    """Complete members that the set goes on without because their disk is full: those that were let go for it, and as
    many of those that refuse records as nodes with room can take the place of. Never all: another complete member with
    room stays, for one without could not even write down that it leads."""
    complete = _complete(entry, cluster)
    full = [m for m in complete if cluster.heard[m.node].full]
    if len(full) == len(complete):
        return []
    gone = [m for m in full if m not in entry.members]
    refusing = [m for m in full if m in entry.members and cluster.heard[m.node].refuses]
    named = {m.node for m in (*entry.last_active, *entry.members, *entry.joining)}
    cut = {suspect for _, suspect in cluster.cut} | {node for set_id, node in cluster.unable if set_id == entry.id}
    return gone + refusing[: 0 if entry.joining else len(_spares(named | cut, cluster))]


def _within_reach(entry: SetEntry, cluster: Cluster, serving: str, relieved: list[MemberEntry]) -> list[MemberEntry]:
    """Complete members that are not relieved, the serving one first: without those that it reports now as members, and
    those that it reported before they were dropped. While it is not among them itself, its word counts for nothing:
    whom it does not reach may be all that is left."""
    staying = (m for m in _complete(entry, cluster) if m not in relieved)
    complete = sorted(staying, key=lambda m: m.node != serving)
    if complete[0].node != serving:
        return complete
    reported = cluster.suspects_of(entry) if serving == entry.primary else []
    former = [m for m in complete if m not in entry.members and (serving, m.node) in cluster.cut]
    return [m for m in complete if m.node == serving or m not in (*reported, *former)]


def _retry(entry: SetEntry, copies: int, cluster: Cluster) -> SetEntry:
    """An activation did not come to its end: another primary where there is one. Members alone: nothing is served
    meanwhile, and who joins may be what it waits for."""
    others = [m for m in _complete(entry, cluster) if m.node != entry.primary]
    primary = min(others, key=lambda m: _burden(m, cluster)).node if others else None
    return following(entry, copies, cluster, primary, join=False)


def _joining(entry: SetEntry, serving: str, wanted: int, cluster: Cluster) -> list[MemberEntry]:
    """Those that join already and answer; then nodes on other machines first, those that held the set before next.
    Nobody that the serving node does not reach, or that has no room for the set."""
    cut = {suspect for primary, suspect in cluster.cut if primary == serving}
    cut |= {node for set_id, node in cluster.unable if set_id == entry.id}
    sure = [m for m in entry.joining if standing(m, cluster) is Standing.SURE and m.node not in cluster.draining]
    chosen = [m for m in sure if m.node not in cut][: max(0, wanted)]
    taken = {m.node for m in (*_complete(entry, cluster), *chosen)}
    machines = Counter(cluster.nodes[n].machine for n in taken - cluster.draining)
    held = {m.node for m in (*entry.dropped, *entry.last_active)}
    while len(chosen) < wanted and (spares := _spares(taken | cut, cluster)):
        best = min(
            spares, key=lambda n: (machines[n.machine], n.name not in held, cluster.load.members[n.name], n.name)
        )
        chosen.append(MemberEntry(best.name, _store(best.name, cluster)))
        taken.add(best.name)
        machines[best.machine] += 1
    return chosen


def _spares(taken: Iterable[str], cluster: Cluster) -> list[NodeEntry]:
    """Nodes that answer, have room on their disks, and are not taken."""
    return [
        cluster.nodes[name]
        for name, heard in cluster.heard.items()
        if heard.is_there and not heard.full and name not in {*taken, *cluster.draining}
    ]


def _store(node: str, cluster: Cluster) -> int:
    store = cluster.heard[node].store
    assert store is not None, "a spare has answered"
    return store


def _burden(member: MemberEntry, cluster: Cluster) -> tuple[bool, int, int, str]:
    load = cluster.load
    return member.node in cluster.draining, load.primaries[member.node], load.members[member.node], member.node


def _same(a: list[MemberEntry], b: list[MemberEntry]) -> bool:
    return set(a) == set(b)


def activated(entry: SetEntry, generation: int, node: str, copies: int) -> SetEntry | None:
    """The record after its primary settled all groups; None when it says so already.

    Raises:
        ConflictError: that is not the generation, or not its primary.
    """
    if entry.generation != generation or entry.primary != node:
        raise _other(entry)
    if entry.state == "active":
        return None
    return _closed(msgspec.structs.replace(entry, state="active", last_active=entry.members), copies)


def whole(entry: SetEntry, generation: int, member: MemberEntry, copies: int) -> SetEntry | None:
    """The record after a joining member got everything; None when it says so already.

    Raises:
        ConflictError: that is not the generation, it is not active, or the member does not join it.
    """
    if entry.generation != generation or entry.state != "active":
        raise _other(entry)
    if member in entry.members:
        return None
    if member not in entry.joining:
        raise _other(entry)
    members = [*entry.members, member]
    joining = [m for m in entry.joining if m != member]
    dropped = [m for m in entry.dropped if m.node != member.node]
    new = msgspec.structs.replace(entry, members=members, last_active=members, joining=joining, dropped=dropped)
    return _closed(new, copies)


def check_suspect(entry: SetEntry, generation: int, node: str, suspect: MemberEntry) -> None:
    """Raises ConflictError unless that node is the primary of the generation, and the other one has a part in it."""
    known = suspect in (*entry.members, *entry.joining) and suspect.node != node
    if entry.generation != generation or entry.primary != node or not known:
        raise _other(entry)


def check_joins(entry: SetEntry, generation: int, member: MemberEntry) -> None:
    """Raises ConflictError unless that node joins the set in that generation."""
    if entry.generation != generation or member not in entry.joining:
        raise _other(entry)


def _closed(entry: SetEntry, copies: int) -> SetEntry:
    """With all copies there nobody needs what dropped members still hold."""
    return msgspec.structs.replace(entry, dropped=[]) if len(entry.members) >= copies else entry


def _other(entry: SetEntry) -> ConflictError:
    return ConflictError(
        f"the set {entry.id:016x} is in generation {entry.generation} ({entry.state}), primary {entry.primary}",
        "the next view says what it is now",
    )
