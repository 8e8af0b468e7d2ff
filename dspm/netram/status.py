"""The state of the cluster, asked of the nodes themselves: it works without the registry.

A copy counts when its node answers, still has the memory that it had when it became a member, and is settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dspm.errors import AuthError, DspmError, ProtocolError, UnavailableError
from dspm.netram import messages
from dspm.netram.client import Client
from dspm.netram.config import Config
from dspm.netram.messages import DatasetEntry, GroupStatus, Listing, NodeEntry, NodeStatus, PlainView

TIMEOUT_S = 2.0


@dataclass
class Answers:
    """What the nodes said."""

    view: PlainView = field(default_factory=PlainView)
    datasets: list[DatasetEntry] = field(default_factory=list)
    nodes: dict[str, NodeStatus] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


@dataclass
class _Said:
    status: NodeStatus
    listing: Listing


def gather(config: Config, timeout_s: float = TIMEOUT_S) -> Answers:
    """Asks all nodes at once.

    Raises:
        UnavailableError: none answers.
    """
    key = config.key()
    answers = Answers()
    said: list[_Said] = []

    def ask(address: str) -> _Said | DspmError:
        try:
            with Client(address, key, config.cluster, timeout_s) as client:
                return _Said(client.ask(messages.Status(), NodeStatus), client.ask(messages.List(), Listing))
        except DspmError as e:
            return e

    def round_of(addresses: list[str]) -> list[DspmError]:
        if not addresses:
            return []
        with ThreadPoolExecutor(max_workers=min(32, len(addresses))) as pool:
            results = list(pool.map(ask, addresses))
        said.extend(r for r in results if isinstance(r, _Said))
        for address, r in zip(addresses, results, strict=True):
            if isinstance(r, DspmError):
                answers.silent[address] = str(r)
        return [r for r in results if isinstance(r, DspmError)]

    errors = round_of(config.nodes)
    if not said:
        raise _worst(errors, len(config.nodes))
    newest = max((s.listing for s in said), key=lambda x: x.view.version)
    round_of([n.address for n in newest.view.nodes if n.address not in config.nodes])
    newest = max((s.listing for s in said), key=lambda x: (x.view.version, len(x.datasets)))
    answers.view, answers.datasets = newest.view, sorted(newest.datasets, key=lambda d: d.name)
    answers.nodes = {s.status.name: s.status for s in said}
    return answers


def _worst(errors: list[DspmError], nodes: int) -> DspmError:
    """The error to show when nobody answered: a wrong key or version says more than silence."""
    for e in errors:
        if isinstance(e, AuthError | ProtocolError):
            return e
    hint = "`dspm up --dir D` starts what is missing"
    if len(errors) == 1:
        return UnavailableError(str(errors[0]), hint)
    return UnavailableError(f"none of the {nodes} nodes of the cluster answers; the last: {errors[-1]}", hint)


def report(answers: Answers) -> dict[str, Any]:
    """What `dspm status --json` prints."""
    nodes = [_node(n, answers) for n in _all_nodes(answers)]
    datasets = [_dataset(d, answers) for d in answers.datasets]
    machines = {n.machine for n in answers.view.nodes}
    return {
        "cluster": answers.view.cluster,
        "registry": answers.view.registry,
        "datasets": datasets,
        "nodes": nodes,
        "degraded": any(d["copies_now"] < d["copies"] for d in datasets),
        "one_host": len(answers.view.nodes) > 1 and all(m.endswith("@local") for m in machines),
    }


def _all_nodes(answers: Answers) -> list[NodeEntry]:
    """Those of the view; before a node has one, those that answered."""
    return answers.view.nodes or [NodeEntry(n, "", "") for n in sorted(answers.nodes)]


def _node(n: NodeEntry, answers: Answers) -> dict[str, Any]:
    status = answers.nodes.get(n.name)
    base = {"name": n.name, "address": n.address, "machine": n.machine}
    if status is None:
        why = answers.silent.get(n.address, "not asked")
        return {**base, "state": "down", "why": why, "frames": 0, "frames_used": 0, "checksum_errors": 0}
    promised = {m.store for s in answers.view.sets for m in s.members if m.node == n.name}
    return {
        **base,
        "state": "lost its memory" if promised - {status.store} else status.state,
        "frames": status.frames,
        "frames_used": status.frames_used,
        "frames_dirty": status.frames_dirty,
        "checksum_errors": status.checksum_errors,
    }


def _dataset(d: DatasetEntry, answers: Answers) -> dict[str, Any]:
    members = next((s for s in answers.view.sets if s.id == d.set), None)
    if members is None:
        empty: dict[str, Any] = {"copies_now": 0, "generation": 0, "primary": "", "backups": []}
        return {"name": d.name, "lsn": 0, "flushed_lsn": 0, "copies": d.copies, **empty, "writer": None}
    groups = {m.node: _group(answers.nodes.get(m.node), d.group) for m in members.members}
    alive = [m.node for m in members.members if _is_copy(m.node, m.store, groups[m.node], answers.nodes)]
    best = groups[members.primary] or max((g for g in groups.values() if g), key=lambda g: g.lsn, default=None)
    lsns = [g.flushed for n in alive if (g := groups[n])]
    return {
        "name": d.name,
        "lsn": best.lsn if best else 0,
        "flushed_lsn": min(lsns, default=0),
        "durability": d.durability,
        "copies": d.copies,
        "copies_now": len(alive),
        "generation": members.generation,
        "primary": members.primary,
        "backups": [m.node for m in members.members if m.node != members.primary],
        "writer": f"{best.writer:016x}" if best and best.writer else None,
    }


def _group(status: NodeStatus | None, group: int) -> GroupStatus | None:
    return next((g for g in status.groups if g.group == group), None) if status else None


def _is_copy(node: str, store: int, group: GroupStatus | None, nodes: Mapping[str, NodeStatus]) -> bool:
    status = nodes.get(node)
    return status is not None and status.store == store and (group is None or group.state != "unsettled")


def sizes(answers: Answers) -> dict[int, int]:
    """Bytes by dataset: the primary's word, else the largest that a backup knows."""
    found: dict[int, tuple[bool, int]] = {}
    for status in answers.nodes.values():
        for g in status.groups:
            for dataset, size in g.sizes:
                found[dataset] = max(found.get(dataset, (False, 0)), (g.primary, size))
    return {dataset: size for dataset, (_, size) in found.items()}
