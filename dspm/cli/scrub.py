"""`dspm scrub`: the nodes look for damage in all that they hold, now, and put it right."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspm.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from dspm.netram.scrub import NodeReport

BAD_DATA = 4
UNAVAILABLE = 3


def scrub(what: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Have all nodes read everything that they hold, in memory and on disk, and repair what is damaged.

    Exit status 0: all is sound, or repaired; 4: something is lost, or still waits to be repaired; 3: a node could not
    be asked.

    Parameters
    ----------
    what
        Only this node, or the copies of this dataset.
    json
        Print it as JSON.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.scrub import scrub_nodes

    on_terminal = sys.stderr.isatty() and not json
    reports = scrub_nodes(load_cluster(), what, _show if on_terminal else None)
    if on_terminal:
        print("\r\x1b[K", end="", file=sys.stderr)
    if json:
        print_json({"sound": _status(reports) == 0, "nodes": [_as_json(r) for r in reports]})
    else:
        _print(reports)
    return _status(reports)


def _status(reports: list[NodeReport]) -> int:
    if any(r.report and (r.report.lost_pages or r.report.waiting) for r in reports):
        return BAD_DATA
    return UNAVAILABLE if any(r.report is None for r in reports) else 0


def _show(reports: list[NodeReport]) -> None:
    """One line on the terminal, overwritten as the passes go on."""
    done, whole = (sum(getattr(r.report, k) for r in reports if r.report) for k in ("done_bytes", "all_bytes"))
    percent = min(99, 100 * done // whole) if whole else 0
    print(f"\r\x1b[K{percent} % of {len(reports)} nodes, {done >> 20} MiB", end="", file=sys.stderr, flush=True)


def _as_json(node: NodeReport) -> dict[str, Any]:
    from dspm.netram.messages import plain

    if node.report is None:
        return {"node": node.name, "state": "unreachable", "why": node.why}
    r = node.report
    return {
        "node": node.name,
        "state": r.state,
        "pages": r.pages,
        "bytes": r.done_bytes,
        "bad": r.bad,
        "repaired": r.repaired,
        "waiting": r.waiting,
        "lost_pages": r.lost_pages,
        "lost": [{k: plain(x)[k] for k in ("name", "page", "lsn", "asked")} for x in r.lost],
        "seconds": r.ms / 1000,
    }


_COLUMNS = ("node", "pages checked", "bad", "repaired", "waiting", "lost", "seconds")


def _print(reports: list[NodeReport]) -> None:
    rows = []
    for n in reports:
        r = n.report
        numbers = (r.pages, r.bad, r.repaired, r.waiting, r.lost_pages, f"{r.ms / 1000:.1f}") if r else ("-",) * 6
        rows.append((n.name, *numbers))
    print_table("", _COLUMNS, rows, frozenset(_COLUMNS[1:]))
    for n in reports:
        if n.report is None:
            print(f"{n.name} could not be asked: {printable(n.why)}")
            continue
        for x in n.report.lost:
            asked = "; ".join(x.asked)
            print(printable(f"LOST on {n.name}: page {x.page} of {x.name} (commit {x.lsn}): {asked}"))
        if n.report.lost_pages > len(n.report.lost):
            print(f"LOST on {n.name}: {n.report.lost_pages - len(n.report.lost)} more pages")
        if n.report.waiting:
            print(f"{n.name}: {n.report.waiting} damaged copies cannot be replaced yet: a later pass tries again")
