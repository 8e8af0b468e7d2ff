"""Asking nodes for a pass of scrub, and waiting for it. It works without the registry.

A node that stops answering is given up, not waited for; a pass goes on there whether anybody waits or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dspm.errors import DspmError, NotFoundError, UnavailableError
from dspm.netram.client import Client, connect_any
from dspm.netram.config import Config
from dspm.netram.messages import List, Listing, Locate, Located, NodeEntry, Scrub, ScrubReport
from dspm.netram.names import dataset_name

LOOK_AGAIN_S = 0.1
TIMEOUT_S = 5.0


@dataclass
class NodeReport:
    """A node, and how far its pass is; without a report, why it could not be asked."""

    name: str
    address: str
    report: ScrubReport | None = None
    why: str = ""


def scrub_nodes(
    config: Config, what: str | None = None, show: Callable[[list[NodeReport]], None] | None = None
) -> list[NodeReport]:
    """Has all nodes, a node, or the members of a dataset's set do a pass; returns when all are done.

    Raises:
        UnavailableError: no node answers.
        NotFoundError: there is no such node, and no such dataset.
    """
    nodes, groups = _chosen(config, what)
    reports = [NodeReport(n.name, n.address) for n in nodes]
    with ThreadPoolExecutor(max_workers=max(1, len(reports))) as pool:
        running = [pool.submit(_scrub, config, r, groups) for r in reports]
        while not all(f.done() for f in running):
            if show:
                show(reports)
            time.sleep(LOOK_AGAIN_S)
        for f in running:
            f.result()
    return reports


def _chosen(config: Config, what: str | None) -> tuple[list[NodeEntry], list[int]]:
    with connect_any(config) as client:
        view = client.ask(List(limit=1), Listing).view
        if view is None:
            raise UnavailableError("the node does not know the cluster yet", "`dspm status` shows what is missing")
        if what is None:
            return view.nodes, []
        if found := [n for n in view.nodes if n.name == what]:
            return found, []
        try:
            located = client.ask(Locate(dataset_name(config.namespace, what)), Located)
        except NotFoundError:
            hint = "`dspm status` lists the nodes, `dspm ls` the datasets"
            raise NotFoundError(f"there is no node and no dataset {what}", hint) from None
        members = {m.node for m in [*located.set.members, *located.set.joining]}
        return [n for n in view.nodes if n.name in members], [located.entry.group]


def _scrub(config: Config, node: NodeReport, groups: list[int]) -> None:
    try:
        with Client(node.address, config.key(), config.cluster, TIMEOUT_S) as client:
            report = client.ask(Scrub(groups=groups), ScrubReport)
            while report.state != "done":
                node.report = report
                time.sleep(LOOK_AGAIN_S)
                report = client.ask(Scrub(report.pass_), ScrubReport)
            node.report = report
    except DspmError as e:
        node.report, node.why = None, str(e)
