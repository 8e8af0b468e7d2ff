"""`dspm fsck`: are the files of a stopped node sound?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspm.cli.arguments import GivenPath
from dspm.cli.output import print_json
from dspm.errors import UsageError

if TYPE_CHECKING:
    from dspm.formats.report import Finding, Report

BAD_DATA = 4


def fsck(
    data_dir: GivenPath | None = None,
    /,
    *,
    dir: GivenPath | None = None,
    arena: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Check all files of a stopped node: arena, disk log, base files, identity, catalog, and each against the others.

    Nothing is changed. Exit status 0: sound; 4: damaged; 3: a node uses the files; 2: not a node's directory. What a
    crash may leave and recovery puts right, such as a torn tail of the log, is a note and no damage.

    Parameters
    ----------
    data_dir
        A node's data directory, such as D/nodes/n1 of `dspm up --dir D`.
    dir
        Instead of it: the directory of a cluster that `dspm up` made; all its nodes are checked.
    arena
        The file of the node's memory, if it is not where `dspm up` or `dspm node` put it.
    json
        Print it as JSON.
    """
    from dspm.formats.fsck import check

    reports = [(path, check(path, file)) for path, file in _nodes(data_dir, dir, arena)]
    if json:
        print_json({"sound": all(r.sound for _, r in reports), "nodes": [_as_json(p, r) for p, r in reports]})
    else:
        for path, report in reports:
            _print(path, report)
    return 0 if all(r.sound for _, r in reports) else BAD_DATA


def _nodes(data_dir: Path | None, cluster: Path | None, arena: Path | None) -> list[tuple[Path, Path | None]]:
    """The data directories to check, each with its arena if that was given."""
    from dspm.netram.layout import Layout

    if (data_dir is None) == (cluster is None):
        hint = "`dspm fsck DATA_DIR` checks a node, `dspm fsck --dir D` a cluster of `dspm up`"
        raise UsageError("expected a node's data directory, or --dir", hint)
    if data_dir is not None:
        return [(data_dir, arena)]
    if arena is not None:
        raise UsageError("--arena is one node's", "give that node's data directory instead of --dir")
    assert cluster is not None
    state = Layout(cluster).read_state()
    if state is None:
        raise UsageError(f"there is no cluster in {cluster}", "give the --dir of `dspm up`")
    return [(Path(n.data_dir), None) for n in state.nodes]


def _as_json(path: Path, report: Report) -> dict[str, Any]:
    return {
        "data_dir": str(path),
        "sound": report.sound,
        "counts": dict(report.counts),
        "problems": [_finding(p) for p in report.problems],
        "problems_not_listed": report.unlisted,
        "notes": [_finding(n) for n in report.notes],
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "file": found.file,
        "offset": found.offset,
        "what": found.what,
        "expected": found.expected,
        "found": found.found,
    }


def _print(path: Path, report: Report) -> None:
    for found in report.notes:
        print(f"note: {found}")
    for found in report.problems:
        print(f"problem: {found}")
    if report.unlisted:
        print(f"problem: {report.unlisted} more, not listed")
    number = len(report.problems) + report.unlisted
    verdict = "sound" if report.sound else f"{number} problem{'s' if number > 1 else ''}"
    print(f"{path}: {verdict}; " + ", ".join(f"{what} {count}" for what, count in report.counts.items()))
