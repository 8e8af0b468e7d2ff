"""`dspm status`, `dspm path`, `dspm version`: looking, without changing anything."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from dspm.cli.output import print_json, print_table
from dspm.errors import UsageError


def status(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show datasets and nodes, as the nodes themselves tell.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.status import gather, report

    found = report(gather(load_cluster()))
    if json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    from dspm.netram.limits import human

    nodes = [
        (n["name"], n["state"], n["address"], n["machine"], f"{human(n['frames_used'] * 4096)}", n["checksum_errors"])
        for n in found["nodes"]
    ]
    columns = ("node", "state", "address", "machine", "memory used", "checksum errors")
    print_table("", columns, nodes, frozenset({"memory used", "checksum errors"}))
    datasets = [
        (
            d["name"],
            d["lsn"],
            d["flushed_lsn"],
            f"{d['copies_now']} of {d['copies']}",
            d["primary"],
            ", ".join(d["backups"]),
            d["writer"] or "",
        )
        for d in found["datasets"]
    ]
    headings = ("dataset", "lsn", "on disk", "copies", "primary", "backups", "writer")
    print_table("", headings, datasets, frozenset({"lsn", "on disk"}))
    if found["one_host"]:
        print("All nodes run on this one host: copies outlive processes here, not the machine.")
    if found["degraded"]:
        print("DEGRADED: some datasets have fewer copies than asked for.")


def path(what: str, /) -> None:
    """Print where a part of dspm lies: `sqlite`, the loadable extension.

    Parameters
    ----------
    what
        sqlite
    """
    from dspm import _native

    if what != "sqlite":
        raise UsageError(f"`dspm path {what[:40]}` is not known", "`dspm path sqlite` prints the loadable extension")
    print(_native.library_path())


def version() -> None:
    """Print the versions of the package and of its library."""
    from dspm import __version__, _native

    print(f"dspm {__version__}, libdspm {_native.version()}")
