"""Where a new group lives. Pure functions over the view and the load.

Invariants: a placement has exactly `copies` different nodes; two of them share a machine only when there are fewer
usable machines than copies; a node with a full disk is taken only where no other will do, for it refuses commits; among
equals the least loaded, then the first by name, so that equal inputs give equal placements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dspm.errors import UnavailableError, UsageError
from dspm.netram.messages import DatasetEntry, NodeEntry, SetEntry


@dataclass(frozen=True, slots=True)
class Placement:
    """The members of a new group; the first serves."""

    primary: str
    backups: tuple[str, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """All of them, the primary first."""
        return (self.primary, *self.backups)


@dataclass(slots=True)
class Load:
    """How many groups each node serves, and how many it holds."""

    primaries: Counter[str] = field(default_factory=Counter)
    members: Counter[str] = field(default_factory=Counter)

    def add(self, group_set: SetEntry, groups: int = 1) -> None:
        """Counts groups of that set; a negative number takes them back."""
        self.primaries[group_set.primary] += groups
        for member in (*group_set.members, *group_set.joining):
            self.members[member.node] += groups


def load_of(sets: Iterable[SetEntry], datasets: Iterable[DatasetEntry]) -> Load:
    """The load of a whole catalog."""
    by_id = {s.id: s for s in sets}
    load = Load()
    for set_id, groups in Counter(d.set for d in datasets).items():
        load.add(by_id[set_id], groups)
    return load


def place(
    nodes: Sequence[NodeEntry],
    answering: frozenset[str],
    load: Load,
    copies: int,
    full: frozenset[str] = frozenset(),
) -> Placement:
    """Chooses `copies` nodes among those that answer; `full` are those whose disks take no more.

    Raises:
        UsageError: the cluster has fewer nodes than copies.
        UnavailableError: fewer nodes answer than copies.
    """
    if copies < 1 or copies > len(nodes):
        raise UsageError(f"{copies} copies in a cluster of {len(nodes)} nodes", "ask for fewer copies, or add nodes")
    usable = [n for n in nodes if n.name in answering]
    if len(usable) < copies:
        raise UnavailableError(f"{copies} copies are asked for and {len(usable)} of {len(nodes)} nodes answer")
    primary = min(usable, key=lambda n: (n.name in full, load.primaries[n.name], load.members[n.name], n.name))
    chosen = [primary]
    machines = Counter({primary.machine: 1})
    while len(chosen) < copies:
        rest = [n for n in usable if n not in chosen]
        following = min(rest, key=lambda n: (machines[n.machine], n.name in full, load.members[n.name], n.name))
        chosen.append(following)
        machines[following.machine] += 1
    return Placement(primary.name, tuple(n.name for n in chosen[1:]))
