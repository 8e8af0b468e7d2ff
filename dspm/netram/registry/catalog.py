"""What the registry has decided: nodes, replica sets and datasets, mirrored in memory, written before it is said.

Invariants: memory changes only after the transaction that wrote the same change; decisions are synchronous, so no two
of them interleave; `sequence` counts changes of the catalog, and what changed since is known or answered with "all".
While a node is known to be ahead of this state nothing is decided: the state is an old one.

A removed dataset is owed to the nodes of its set until each said that it freed the group; what a node holds of a set
that no longer names it is owed in the same way, unless the set takes the node back. This is the only word that destroys
data (docs/decisions/0013): a dataset that is not here may be one that this state, restored from a backup, is too old to
know, and its data stays where it is.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError, UsageError, from_code
from dspm.netram.messages import CreateOptions, DatasetEntry, Durability, MemberEntry, NodeEntry, Quiet, SetEntry, View
from dspm.netram.names import check_name
from dspm.netram.placement import Load, load_of, place
from dspm.netram.registry import removal
from dspm.netram.registry import store as rows
from dspm.netram.registry.listening import Listening
from dspm.netram.registry.store import Store
from dspm.netram.registry.takeover import Known, Takeover
from dspm.netram.viewsum import view_sum

CHANGES_KEPT = 100_000
"""Changes of the catalog that are remembered for nodes that are behind; older ones get the whole catalog."""
PAGE_MAX = 1000
"""Most datasets of one page of the list."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The cluster's values for what a client does not say."""

    durability: Durability
    copies: int
    min_copies: int
    lease_ms: int
    history_ms: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """What all datasets of a set have in common."""

    durability: Durability
    copies: int


class Catalog:
    """The decisions."""

    def __init__(self, store: Store, defaults: Defaults) -> None:
        self._store = store
        self.defaults = defaults
        self.url = ""
        self._changes: deque[tuple[int, str]] = deque(maxlen=CHANGES_KEPT)
        self.sequence = 1
        self.ahead: dict[str, str] = {}
        """Nodes that have a view which this state did not make, with what it is."""
        self.waits = ""
        """Why what they know is not taken over."""
        self.listening = Listening((), 0.0)
        """Until it is over nothing is decided either."""
        self._sum = (0, 0)
        self._began: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        """Takes over what the file says."""
        store = self._store
        self.nodes = {n.name: n for n in store.nodes()}
        self.sets = {s.id: s for s in store.sets()}
        self.datasets = {d.name: d for d in store.datasets()}
        self._names = sorted(self.datasets)
        self._marked: dict[int, str] = {}
        self._owed: dict[str, set[int]] = {}
        for node, group, _ in store.removed():
            self._owed.setdefault(node, set()).add(group)
        self.draining = store.draining()
        self._load = load_of(self.sets.values(), self.datasets.values())
        self._groups = Counter(d.set for d in self.datasets.values())
        self._kinds: dict[int, Kind] = {}
        for d in self.datasets.values():
            self._count_in(d)

    @property
    def trouble(self) -> str:
        """Why nothing is decided; empty when it is."""
        if not self.ahead:
            return ""
        node, has = min(self.ahead.items())
        why = f". What nodes know is not taken over: {self.waits}" if self.waits else ""
        more = f", and {len(self.ahead) - 1} more" if len(self.ahead) > 1 else ""
        return (
            f"the registry's state is older than what nodes know, and it decides nothing: {node} has {has}, the state"
            f" version {self.view_version}{more}{why}"
        )

    @property
    def may_decide(self) -> bool:
        """False while this state may be an old one."""
        return not (self.ahead or self.listening.missing)

    def check_current(self) -> None:
        """Raises UnavailableError when nothing may be decided."""
        if self.ahead:
            raise UnavailableError(
                self.trouble,
                "start the nodes that are away; or put the newer registry.db back; or `dspm recover --registry`",
            )
        if self.listening.missing:
            silent = ", ".join(sorted(self.listening.missing))
            raise UnavailableError(f"the registry has just started, and has not heard {silent} yet", "try again")

    @contextmanager
    def _decide(self, changes_view: bool) -> Iterator[sqlite3.Connection]:
        self.check_current()
        with self._store.decide(changes_view) as db:
            yield db

    @property
    def view_sum(self) -> int:
        """Checksum of the view."""
        if self._sum[0] != self.view_version:
            view = self.view()
            self._sum = view.version, view_sum(view.version, view.nodes, view.sets)
        return self._sum[1]

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self._store.cluster

    @property
    def view_version(self) -> int:
        """Version of the view."""
        return self._store.view_version

    def view(self) -> View:
        """The view as nodes get it. One version is always the same bytes, also after a restart of the registry."""
        nodes, sets = [self.nodes[n] for n in sorted(self.nodes)], [self.sets[i] for i in sorted(self.sets)]
        return View(version=self.view_version, cluster=self.cluster, registry=self.url, nodes=nodes, sets=sets)

    def own(self) -> Known:
        """What this state knows."""
        v = self.view()
        return Known(v.version, self.view_sum, v.nodes, v.sets, list(self.datasets.values()))

    def given(self) -> set[int]:
        """Every id that this state ever gave."""
        return self._store.given()

    def take_over(self, new: Takeover) -> None:
        """Goes on from another state, which is decided here although this one is an old one."""
        with self._store.decide(changes_view=True) as db:
            rows.replace_all(db, new.version, new.nodes, new.sets, new.datasets)
        self._read()
        self.sequence += 1
        self._changes.clear()  # every node is told the whole catalog
        self._began = dict.fromkeys(self.sets, self.sequence)
        self.ahead, self.waits, self.listening = {}, "", Listening((), 0.0)

    def page(self, after: str, limit: int) -> tuple[list[DatasetEntry], bool]:
        """Datasets whose names are above `after`, in order; and whether there are more."""
        at = bisect_right(self._names, after)
        names = self._names[at : at + limit]
        return [self.datasets[n] for n in names], at + limit < len(self._names)

    def changed_since(self, sequence: int) -> set[str] | None:
        """Names that changed after that sequence number; None when that is no longer known."""
        behind = self.sequence - sequence
        if behind > len(self._changes):
            return None
        names: set[str] = set()
        for number, name in reversed(self._changes):
            if number <= sequence:
                break
            names.add(name)
        return names

    def find(self, name: str) -> DatasetEntry:
        """The dataset of that name."""
        try:
            return self.datasets[check_name(name)]
        except KeyError:
            self.check_current()
            raise _missing(name) from None

    def put_node(self, node: NodeEntry) -> None:
        """Adds a node or takes over its new address."""
        if self.nodes.get(node.name) == node:
            return
        with self._decide(changes_view=True) as db:
            rows.put_node(db, node)
        self.nodes[node.name] = node

    def remove_node(self, node: str) -> None:
        """Forgets a node that no set with datasets names, and the sets without any that do."""
        empty = [s.id for s in self.sets.values() if node in named(s) and not self._groups[s.id]]
        with self._decide(changes_view=True) as db:
            rows.remove_node(db, node)
            for set_id in empty:
                rows.remove_set(db, set_id)
        for set_id in empty:
            del self.sets[set_id]
            for known in (self._groups, self._kinds, self._began):
                known.pop(set_id, None)
        del self.nodes[node]
        self.draining.discard(node)
        self._owed.pop(node, None)

    def create(
        self, name: str, options: CreateOptions, stores: dict[str, int], full: frozenset[str] = frozenset()
    ) -> DatasetEntry:
        """Places a new dataset on nodes of `stores` (those that answer, with their store ids), rather not on `full`."""
        check_name(name)
        self.check_current()
        durability, copies, min_copies = self._resolve(options)
        history_ms = self.defaults.history_ms if options.history_ms is None else options.history_ms
        usable = frozenset(stores) - self.draining
        chosen = place(list(self.nodes.values()), usable, self._load, copies, full)
        members = [MemberEntry(n, stores[n]) for n in chosen.members]
        entry_set = self._same_set(members, Kind(durability, copies))
        fresh = entry_set is None
        with self._decide(changes_view=fresh) as db:
            if entry_set is None:
                entry_set = SetEntry(
                    id=self._store.new_id(db),
                    generation=1,
                    state="active",
                    primary=chosen.primary,
                    members=members,
                    last_active=members,
                )
                rows.put_set(db, entry_set)
            ids = self._store.new_id(db), self._store.new_id(db)
            entry = DatasetEntry(name, *ids, entry_set.id, durability, copies, min_copies, history_ms)
            rows.add_dataset(db, entry)
        self.sets[entry_set.id] = entry_set
        self.datasets[name] = entry
        insort(self._names, name)
        self._groups[entry_set.id] += 1
        self._count_in(entry)
        self._load.add(entry_set)
        self._changed(name)
        return entry

    def mark(self, name: str) -> DatasetEntry:
        """The dataset is about to be removed: its primary is to bring it to rest. Answers the entry with its mark."""
        self.check_current()
        entry = self.datasets[name] = removal.marked(self.find(name))
        self._marked[entry.group] = name
        self._changed(name)
        return entry

    def unmark(self, entry: DatasetEntry) -> None:
        """The dataset stays, if it is still there with that mark."""
        if self.datasets.get(entry.name) == entry:
            self.datasets[entry.name] = removal.unmarked(entry)
            del self._marked[entry.group]
            self._changed(entry.name)

    def quiet(self, node: str, said: Quiet) -> str:
        """The primary says that a dataset is at rest: removes it, and answers its name."""
        name = self._marked.get(said.group, "")
        removal.check_quiet(self.datasets.get(name), self._set(said.set), node, said)
        self.remove(name)
        return name

    def was_removed(self, group: int) -> bool:
        """True for the group of a removed dataset, for ever; false for one that this state does not know."""
        return self._store.was_removed(group)

    def _set(self, set_id: int) -> SetEntry:
        try:
            return self.sets[set_id]
        except KeyError:
            raise NotFoundError(f"there is no set {set_id:016x}") from None

    def remove(self, name: str) -> None:
        """Removes a dataset; the nodes of its set have to free it."""
        entry = self.find(name)
        group_set = self.sets[entry.set]
        holders = named(group_set)
        with self._decide(changes_view=False) as db:
            rows.remove_dataset(db, entry, sorted(holders))
        del self.datasets[name]
        self._marked.pop(entry.group, None)
        del self._names[bisect_right(self._names, name) - 1]
        self._load.add(group_set, -1)
        self._groups[entry.set] -= 1
        for node in holders:
            self._owed.setdefault(node, set()).add(entry.group)
        self._changed(name)

    def owed_to(self, node: str) -> list[int]:
        """Groups of removed datasets that the node has yet to free."""
        return sorted(self._owed.get(node, ()))

    def freed(self, node: str, groups: list[int]) -> None:
        """The node has freed them: neither its memory nor its log has them any more."""
        with self._decide(changes_view=False) as db:
            rows.freed(db, node, groups)
        self._owed.get(node, set()).difference_update(groups)

    def drain(self, node: str, draining: bool) -> None:
        """Marks a node as one that sets move away from, or takes the mark off."""
        with self._decide(changes_view=False) as db:
            rows.put_draining(db, node, draining)
        (self.draining.add if draining else self.draining.discard)(node)

    def rename(self, name: str, to: str, aside: str | None = None) -> list[tuple[str, str]]:
        """Gives a dataset another name, and to the one that has it the name `aside`. Answers (old, new) names in order.

        Without `aside` the new name must be free.
        """
        self.find(name)
        check_name(to)
        if name == to:
            return []
        steps = [(name, to)]
        if to in self.datasets:
            if aside is None:
                raise exists(to)
            if check_name(aside) in self.datasets:
                raise exists(aside)
            steps.insert(0, (to, aside))
        for old, _ in steps:
            if self.datasets[old].removing:
                raise ConflictError(f"{old[:80]!r} is being removed", "try again")
        with self._decide(changes_view=False) as db:
            for old, new in steps:
                rows.rename_dataset(db, old, new)
        for old, new in steps:
            self.datasets[new] = msgspec.structs.replace(self.datasets.pop(old), name=new)
            del self._names[bisect_right(self._names, old) - 1]
            insort(self._names, new)
        for changed in dict.fromkeys(n for step in steps for n in step):
            self._changed(changed)
        return steps

    def _changed(self, name: str) -> None:
        self.sequence += 1
        self._changes.append((self.sequence, name))

    def load(self) -> Load:
        """How loaded the nodes are; a copy."""
        return Load(Counter(self._load.primaries), Counter(self._load.members))

    def groups_of(self, set_id: int) -> int:
        """How many groups the set holds."""
        return self._groups[set_id]

    def kind_of(self, set_id: int) -> Kind:
        """What all datasets of a set have in common; what a set without any would do does not matter."""
        return self._kinds.get(set_id, Kind("memory", 1))

    def change(self, entries: Iterable[SetEntry]) -> None:
        """Replaces the records of sets, in one transaction.

        What a set held at nodes that it no longer names is owed to them; what its members were owed is not any more.
        """
        changed = {e.id: e for e in entries}
        left = {i: named(self.sets[i]) - named(e) for i, e in changed.items()}
        back = {i: {n for n in _holding(e) if self._owed.get(n)} for i, e in changed.items()}
        held: dict[int, set[int]] = {i: set() for i in changed if left[i] or back[i]}
        if held:
            for d in self.datasets.values():
                if d.set in held:
                    held[d.set].add(d.group)
        with self._decide(changes_view=True) as db:
            for entry in changed.values():
                rows.put_set(db, entry)
                for node in left[entry.id]:
                    rows.owe(db, node, entry.id)
                for node in back[entry.id]:
                    rows.take_back(db, node, entry.id)
        for entry in changed.values():
            if entry.generation != self.sets[entry.id].generation:
                self._began[entry.id] = self.sequence
            self._replace(entry)
            for node in left[entry.id]:
                self._owed.setdefault(node, set()).update(held[entry.id])
            for node in back[entry.id]:
                self._owed[node].difference_update(held[entry.id])

    def began(self, set_id: int) -> int:
        """The sequence number at which a set's generation began. Who has heard it knows all datasets of the set: it
        gets no others before it is active and nobody joins it."""
        return self._began.get(set_id, 1)

    def _replace(self, entry: SetEntry) -> None:
        count = self._groups[entry.id]
        self._load.add(self.sets[entry.id], -count)
        self._load.add(entry, count)
        self.sets[entry.id] = entry

    def _count_in(self, d: DatasetEntry) -> None:
        known = self._kinds.get(d.set)
        self._kinds[d.set] = Kind(d.durability, max(d.copies, known.copies if known else 1))

    def _same_set(self, members: list[MemberEntry], kind: Kind) -> SetEntry | None:
        """The set of that primary, members (store ids included) and kind: one change serves all its groups."""
        wanted = set(members)
        for s in self.sets.values():
            if self._kinds.get(s.id, kind) != kind:
                continue
            if s.state == "active" and s.primary == members[0].node and set(s.members) == wanted and not s.joining:
                return s
        return None

    def _resolve(self, options: CreateOptions) -> tuple[Durability, int, int]:
        durability = options.durability or self.defaults.durability
        copies = self.defaults.copies if options.copies is None else options.copies
        default = self.defaults.min_copies if copies == self.defaults.copies else max(1, copies - 1)
        min_copies = default if options.min_copies is None else options.min_copies
        if durability == "pm":
            raise UsageError(
                "durability = pm needs persistent memory, which nodes cannot use yet", "use memory or disk"
            )
        if not 1 <= min_copies <= copies:
            raise UsageError(f"min_copies = {min_copies} with copies = {copies}", "use a number from 1 to copies")
        return durability, copies, min_copies


def named(entry: SetEntry) -> set[str]:
    """Nodes that may hold something of the set that counts."""
    return {m.node for m in (*entry.members, *entry.joining, *entry.last_active, *entry.dropped)}


def _holding(entry: SetEntry) -> set[str]:
    return {m.node for m in (*entry.members, *entry.joining)}


def exists(name: str) -> DspmError:
    """The error for a name that is taken."""
    return DspmError(f"a dataset named {name[:80]!r} exists already", "choose another name, or `dspm rm` it first")


def _missing(name: str) -> NotFoundError:
    error = from_code(13, f"there is no dataset named {name[:80]!r}")
    assert isinstance(error, NotFoundError)
    return error
