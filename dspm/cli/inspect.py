"""`dspm status`, `dspm path`, `dspm version`: looking, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspm.cli.output import JsonObject, Table, print_table, printable
from dspm.errors import UsageError

if TYPE_CHECKING:
    from dspm.netram.status import Survey


def status(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show datasets and nodes, as the nodes themselves tell.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.status import Survey

    with Survey(load_cluster()) as survey:
        _print_json(survey) if json else _print(survey)


def _print_json(survey: Survey) -> None:
    from dspm.netram.status import is_degraded

    degraded, sets = False, set[int]()

    def parts() -> Iterator[list[dict[str, Any]]]:
        nonlocal degraded
        for page in survey.pages():
            found = survey.datasets(page)
            degraded = degraded or is_degraded(found)
            sets.update(d.set for d in page.datasets)
            yield found

    out = JsonObject()
    for name, value in survey.head().items():
        out.member(name, value)
    out.items("datasets", parts())
    out.member("sets", survey.sets(sets))
    out.member("degraded", degraded)
    out.end()


def _print(survey: Survey) -> None:
    from dspm.netram.limits import human
    from dspm.netram.status import is_degraded

    head = survey.head()
    nodes = [
        (n["name"], n["state"], n["address"], n["machine"], f"{human(n['frames_used'] * 4096)}", n["checksum_errors"])
        for n in head["nodes"]
    ]
    columns = ("node", "state", "address", "machine", "memory used", "checksum errors")
    print_table("", columns, nodes, frozenset({"memory used", "checksum errors"}))
    for n in head["nodes"]:
        if n.get("why"):
            print(f"{n['name']} {n['state']}: {n['why']}")
    table = Table("", _HEADINGS, frozenset({"lsn", "on disk"}))
    degraded, sets = False, set[int]()
    lost: list[str] = []
    waits: list[str] = []
    for page in survey.pages():
        found = survey.datasets(page)
        degraded = degraded or is_degraded(found)
        sets.update(d.set for d in page.datasets)
        table.rows([_row(d) for d in found])
        waits += [f"{d['name']} {d['waits']}" for d in found if d["waits"]]
        lost += [f"LOST: no good copy of {d['lost_pages']} pages of {d['name']}" for d in found if d["lost_pages"]]
    table.end()
    if sets:
        shown = survey.sets(sets)
        print_table("", _SET_HEADINGS, [_set_row(s) for s in shown], frozenset({"generation"}))
        for s in shown:
            if s["one_machine"]:
                print(f"replica set {s['set']}: {' and '.join(s['one_machine'])} are on one machine, and fail with it")
            for n in s["cannot_join"]:
                print(f"replica set {s['set']}: {n['node']} cannot join: {n['why']}")
    if head["registry_trouble"]:
        print(f"REGISTRY: {printable(head['registry_trouble'])}.")
        print("Start the nodes that are away; or put the newer registry.db back; or see `dspm recover --registry`.")
    if head["one_host"]:
        print("All nodes run on this one host: copies outlive processes here, not the machine.")
    for line in waits:
        print(f"{printable(line)}.")
    for line in lost:
        print(f"{printable(line)}; `dspm scrub` names them.")
    if degraded:
        print("DEGRADED: some datasets have fewer copies than asked for, or their members are changing.")


_HEADINGS = ("dataset", "lsn", "on disk", "copies", "primary", "backups", "writer")


def _row(d: dict[str, Any]) -> tuple[object, ...]:
    copies = f"{d['copies_now']} of {d['copies']}"
    unknown = not d["copies_now"] and not d["lsn"]  # nobody who would know answers: 0 would say that it is empty
    lsn, flushed = ("-", "-") if unknown else (d["lsn"], d["flushed_lsn"])
    return d["name"], lsn, flushed, copies, d["primary"], ", ".join(d["backups"]), d["writer"] or ""


_SET_HEADINGS = ("replica set", "generation", "state", "members, the primary first", "dropped")


def _set_row(s: dict[str, Any]) -> tuple[object, ...]:
    from dspm.netram.limits import human

    state = f"down, waits for {' or '.join(s['waits_for'])}" if s["waits_for"] else s["state"]
    members = sorted(s["members"], key=lambda m: bool(m != s["primary"]))
    far = {p["node"]: f" ({human(p['done'])} of {human(p['total'])})" for p in s["progress"] if p["total"]}
    named = ", ".join([*members, *(f"{n} joining{far.get(n, '')}" for n in s["joining"])])
    return s["set"], s["generation"], state, named, ", ".join(s["dropped"])


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
