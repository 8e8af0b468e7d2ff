"""The state of the cluster, asked of the nodes themselves: it works without the registry.

A copy counts when its node answers, still has the memory that it had when it became a member, and is settled.

The catalog is read in pages from the node that knows most of it, and the nodes are asked about the groups of one page
at a time, so that neither a message nor this process grows with the number of datasets. It is not one moment's picture:
what is created, renamed or removed meanwhile may be there or not, all else is there once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from dspm.errors import AuthError, DspmError, ProtocolError, UnavailableError
from dspm.netram.client import Client
from dspm.netram.config import Config
from dspm.netram.messages import (
    DatasetEntry,
    GroupStatus,
    JoinStatus,
    List,
    Listing,
    NodeEntry,
    NodeStatus,
    PlainView,
    SetEntry,
)
from dspm.netram.messages import Status as Question
from dspm.netram.returned import what_waits

TIMEOUT_S = 2.0
PAGE = 1000
"""Datasets of a page. A node gives fewer when their names are long."""
THREADS = 32

T = TypeVar("T")


@dataclass
class _Node:
    """A node that answers."""

    address: str
    client: Client
    status: NodeStatus
    count: int
    view: PlainView


@dataclass(frozen=True)
class Page:
    """Datasets, by name, and what each node that answers says of their groups."""

    datasets: list[DatasetEntry]
    groups: dict[str, dict[int, GroupStatus]] = field(default_factory=dict)

    def size(self, d: DatasetEntry) -> int:
        """Bytes of a dataset, with those of the files that are datasets of its group: the primary's word, else the most
        that a backup knows."""
        known = [g for of_node in self.groups.values() if (g := of_node.get(d.group))]
        sizes = [(g.primary, sum(size for _, size in g.sizes)) for g in known]
        return max(sizes, default=(False, 0))[1]


class Survey:
    """Connections to all nodes that answer, for one look at the cluster."""

    def __init__(self, config: Config, timeout_s: float = TIMEOUT_S) -> None:
        """Asks all nodes at once.

        Raises:
            UnavailableError: none answers.
        """
        self._config = config
        self._key = config.key()
        self._timeout_s = timeout_s
        self._nodes: dict[str, _Node] = {}
        self._silent: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(max_workers=THREADS)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._pool.shutdown()
        for node in self._nodes.values():
            node.client.close()

    def _begin(self) -> None:
        errors = self._greet(self._config.nodes)
        if not self._nodes:
            raise _worst(errors, len(self._config.nodes))
        self.view = self._best().view
        self._greet([n.address for n in self.view.nodes if n.address not in self._config.nodes])
        self.view = self._best().view

    def _greet(self, addresses: list[str]) -> list[DspmError]:
        errors = []
        for address, answer in zip(addresses, self._pool.map(self._dial, addresses), strict=True):
            if isinstance(answer, DspmError):
                errors.append(answer)
                self._silent[address] = str(answer)
            else:
                self._nodes[answer.status.name] = answer
        return errors

    def _dial(self, address: str) -> _Node | DspmError:
        try:
            client = Client(address, self._key, self._config.cluster, self._timeout_s)
        except DspmError as e:
            return e
        try:
            first = client.ask(List(limit=1), Listing)
            return _Node(address, client, client.ask(Question(), NodeStatus), first.count, first.view or PlainView())
        except DspmError as e:
            client.close()
            return e

    def _best(self) -> _Node:
        """The node that knows most: the newest view, then the largest catalog."""
        if not self._nodes:
            raise UnavailableError("all nodes stopped answering", "`dspm status` again shows what is left")
        return max(self._nodes.values(), key=lambda n: (n.view.version, n.count))

    def _ask(self, node: _Node, question: Callable[[Client], T]) -> T | None:
        """The answer of a node; one that fails is silent from then on."""
        try:
            return question(node.client)
        except DspmError as e:
            self._silent[node.address] = str(e)
            if self._nodes.pop(node.status.name, None):
                node.client.close()
            return None

    def pages(self, wanted: Callable[[DatasetEntry], bool] = lambda _: True) -> Iterator[Page]:
        """The datasets, by name.

        Raises:
            UnavailableError: no node answers any more.
            ProtocolError: a node's pages do not follow one another.
        """
        after, more = "", True
        while more:
            source, question = self._best(), List(after, PAGE, self.view.version)
            page = self._ask(source, lambda c, q=question: c.ask(q, Listing))  # type: ignore[misc]
            if page is None:
                continue
            names = [after, *(d.name for d in page.datasets)]
            if any(a >= b for a, b in zip(names, names[1:], strict=False)) or (page.more and len(names) == 1):
                raise ProtocolError(f"the node {source.status.name} gives pages of the catalog that do not follow")
            self.view = page.view or self.view
            after, more = names[-1], page.more
            shown = [d for d in page.datasets if wanted(d)]
            yield Page(shown, self._groups(shown))

    def _groups(self, datasets: list[DatasetEntry]) -> dict[str, dict[int, GroupStatus]]:
        sets = {s.id: s for s in self.view.sets}
        asked: dict[str, list[int]] = {}
        for d in datasets:
            for m in sets[d.set].members if d.set in sets else []:
                asked.setdefault(m.node, []).append(d.group)
        nodes = [n for name in asked if (n := self._nodes.get(name))]
        told = self._pool.map(lambda n: self._ask(n, lambda c: _ask_all(c, asked[n.status.name])), nodes)
        return {n.status.name: groups for n, groups in zip(nodes, told, strict=True) if groups is not None}

    def head(self) -> dict[str, Any]:
        """What `dspm status` says of the cluster as a whole."""
        # Before a node has a view, those that answered.
        nodes = self.view.nodes or [NodeEntry(n, "", "") for n in sorted(self._nodes)]
        machines = {n.machine for n in self.view.nodes}
        return {
            "cluster": self.view.cluster,
            "registry": self.view.registry,
            "registry_trouble": next((n.status.registry for n in self._nodes.values() if n.status.registry), ""),
            "nodes": [self._node(n) for n in nodes],
            "one_host": len(self.view.nodes) > 1 and all(m.endswith("@local") for m in machines),
        }

    def _node(self, n: NodeEntry) -> dict[str, Any]:
        base = {"name": n.name, "address": n.address, "machine": n.machine}
        if n.name not in self._nodes:
            why = self._silent.get(n.address, "not asked")
            return {**base, "state": "down", "why": why, "frames": 0, "frames_used": 0, "checksum_errors": 0}
        status = self._nodes[n.name].status
        return {
            **base,
            **self._state(status),
            "frames": status.frames,
            "frames_used": status.frames_used,
            "frames_dirty": status.frames_dirty,
            "checksum_errors": status.checksum_errors,
            "repaired": status.repaired,
            "scrubbed_bytes": status.scrubbed_bytes,
        }

    def _state(self, status: NodeStatus) -> dict[str, str]:
        """The state of a node that answers, and why it is not "serving"; in the registry's words."""
        full = f"is given nothing more: {status.full}" if status.full else ""
        if status.state != "serving":  # often because the view cannot be written, either
            return {"state": "behind", "why": "; ".join(filter(None, (status.state, full)))}
        if full:
            return {"state": "full", "why": full}
        why = what_waits(self.view.sets, status.name, status.store, status.lost)
        return {"state": "lost its memory", "why": why} if why else {"state": "serving"}

    def datasets(self, page: Page) -> list[dict[str, Any]]:
        """What `dspm status` says of each dataset of a page."""
        sets = {s.id: s for s in self.view.sets}
        return [self._dataset(d, sets.get(d.set), page) for d in page.datasets]

    def _dataset(self, d: DatasetEntry, members: SetEntry | None, page: Page) -> dict[str, Any]:
        if members is None:
            empty: dict[str, Any] = {"copies_now": 0, "generation": 0, "state": "unknown", "primary": "", "backups": []}
            return {
                "name": d.name,
                "lsn": 0,
                "flushed_lsn": 0,
                "copies": d.copies,
                **empty,
                "joining": [],
                "writer": None,
                "waits": "",
                "lost_pages": 0,
            }
        groups = {m.node: page.groups.get(m.node, {}).get(d.group) for m in members.members}
        alive = [m.node for m in members.members if self._is_copy(m.node, m.store, groups[m.node])]
        best = groups[members.primary] or max((g for g in groups.values() if g), key=lambda g: g.lsn, default=None)
        return {
            "name": d.name,
            "lsn": best.lsn if best else 0,
            "flushed_lsn": min((g.flushed for n in alive if (g := groups[n])), default=0),
            "durability": d.durability,
            "copies": d.copies,
            "copies_now": len(alive),
            "generation": members.generation,
            "state": members.state,
            "primary": members.primary,
            "backups": [m.node for m in members.members if m.node != members.primary],
            "joining": [m.node for m in members.joining],
            "writer": f"{best.writer:016x}" if best and best.writer else None,
            "waits": next((g.state for g in groups.values() if g and g.state.startswith("waits for")), ""),
            "lost_pages": max((g.lost_pages for g in groups.values() if g), default=0),
        }

    def _is_copy(self, node: str, store: int, group: GroupStatus | None) -> bool:
        return self.holds(node, store) and (group is None or group.state != "unsettled")

    def holds(self, node: str, store: int) -> bool:
        """It answers, with the memory that it is recorded with."""
        known = self._nodes.get(node)
        return known is not None and known.status.store == store

    def store_of(self, node: str) -> int | None:
        """What a node remembers; None when it does not answer."""
        known = self._nodes.get(node)
        return known.status.store if known else None

    def held(self, node: str, groups: list[int]) -> dict[int, GroupStatus] | None:
        """What a node holds of these groups, also without a part in their set; None when it stopped answering."""
        return self._ask(self._nodes[node], lambda c: _ask_all(c, groups, held=True))

    def is_down(self, s: SetEntry) -> bool:
        """True when no complete member of the set answers with what it held."""
        return not any(self.holds(m.node, m.store) for m in s.last_active)

    def _one_machine(self, s: SetEntry) -> list[str]:
        """Members that fail at once with another one."""
        machines = {n.name: n.machine for n in self.view.nodes}
        count = Counter(machines.get(m.node) for m in s.members)
        return sorted(m.node for m in s.members if count[machines.get(m.node)] > 1)

    def sets(self, wanted: set[int]) -> list[dict[str, Any]]:
        """What `dspm status` says of these replica sets.

        A set of which no complete member answers is "down": it waits for one of `waits_for`, with what it held.
        """
        return [self._set(s) for s in self.view.sets if s.id in wanted]

    def _set(self, s: SetEntry) -> dict[str, Any]:
        down = self.is_down(s)
        lists = {k: [m.node for m in getattr(s, k)] for k in ("members", "joining", "dropped")}
        joins = {n.status.name: j for n in self._nodes.values() for j in n.status.joins if j.set == s.id}
        return {
            "set": f"{s.id:016x}",
            "generation": s.generation,
            "state": "down" if down else s.state,
            "primary": s.primary,
            **lists,
            "waits_for": [m.node for m in s.last_active] if down else [],
            "history": s.history,
            "one_machine": self._one_machine(s),
            "progress": [_progress(n, j) for n, j in joins.items() if n in lists["joining"]],
            "cannot_join": [{"node": n, "why": j.why} for n, j in joins.items() if j.why and n not in lists["members"]],
        }


def _progress(node: str, join: JoinStatus) -> dict[str, Any]:
    """Bytes of pages that came to a joining node, of those that have to."""
    return {"node": node, "done": join.done, "total": join.total}


def _ask_all(client: Client, groups: list[int], held: bool = False) -> dict[int, GroupStatus]:
    """A node's word on all these groups, in as many questions as its answers need."""
    found: dict[int, GroupStatus] = {}
    while groups:
        status = client.ask(Question(groups[:PAGE], held), NodeStatus)
        if not 0 < status.covered <= len(groups):
            raise ProtocolError(f"an answer about {status.covered} of {len(groups)} groups")
        found.update((g.group, g) for g in status.groups)
        groups = groups[status.covered :]
    return found


def _worst(errors: list[DspmError], nodes: int) -> DspmError:
    """The error to show when nobody answered: a wrong key or version says more than silence."""
    for e in errors:
        if isinstance(e, AuthError | ProtocolError):
            return e
    hint = "`dspm up --dir D` starts what is missing"
    if len(errors) == 1:
        return UnavailableError(str(errors[0]), hint)
    return UnavailableError(f"none of the {nodes} nodes of the cluster answers; the last: {errors[-1]}", hint)


def is_degraded(datasets: Iterable[dict[str, Any]]) -> bool:
    """True when one of them has fewer copies than asked for, changes its members, or has one that does not answer."""
    return any(d["copies_now"] < max(d["copies"], 1 + len(d["backups"])) or d["state"] != "active" for d in datasets)
