"""The command `dspm ycsb`: its arguments. What it does is in `command`, imported when a benchmark is really wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

from cyclopts import App, Parameter

from dspm.errors import UsageError

app = App(
    name="ycsb",
    help="YCSB-compatible benchmark: load a table, run a workload, compare with local files.",
    suppress_keyboard_interrupt=False,
)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """What load and run have in common."""

    workload: Annotated[str, Parameter(help="Core workload, a to f.")] = "a"
    binding: Annotated[str, Parameter(help="Kind of database: sqlite or wiredtiger.")] = "sqlite"
    target: Annotated[
        list[str],
        Parameter(
            help="Where it lives: dspm, wal or delete (local disk, synchronous FULL), tmpfs (WAL), noop (nothing: it "
            "shows what the client can drive); for wiredtiger dspm, disk, tmpfs, noop. "
            "Repeat it with --compare; ratios refer to the first.",
            negative="",
            show_default=False,
        ),
    ] = field(default_factory=list)
    records: Annotated[int, Parameter(help="Records in the table before the run.")] = 10_000
    operations: Annotated[int, Parameter(help="Operations of all processes together.")] = 100_000
    processes: Annotated[
        int | None, Parameter(help="Client processes; by default 2, for wiredtiger 1.", show_default=False)
    ] = None
    threads: Annotated[int, Parameter(help="Client threads of the one process that wiredtiger has.")] = 1
    rate: Annotated[float, Parameter(help="Operations a second of all, on an open-loop schedule; 0: no limit.")] = 0.0
    seconds: Annotated[float, Parameter(help="Longest timed phase; 0: no limit.")] = 0.0
    seed: Annotated[int, Parameter(help="The same seed makes the same operations.")] = 1
    db: Annotated[str, Parameter(help="Data set, or part of a file name; load replaces its `usertable`.")] = "ycsb"
    dir: Annotated[Path | None, Parameter(help="Directory of the disk targets; by default under /var/tmp.")] = None
    cache_size: Annotated[
        int | None,
        Parameter(
            help="The database's own cache: pages, or KiB if negative; by default -2000, for wiredtiger -65536.",
            show_default=False,
        ),
    ] = None
    page_size: Annotated[int, Parameter(help="Bytes of a page of a new SQLite database.")] = 4096
    fields: Annotated[int, Parameter(help="Fields of a record.")] = 10
    field_length: Annotated[int, Parameter(help="Bytes of a field, at least 80.")] = 100
    batch: Annotated[int, Parameter(help="Records in one transaction of load.")] = 1
    wiredtiger: Annotated[
        str, Parameter(help="libwiredtiger.so for the binding wiredtiger; found if not given.", show_default=False)
    ] = ""
    verify: Annotated[bool, Parameter(help="Read everything back afterwards.")] = True
    json: Annotated[
        str,
        Parameter(
            help="Write the results as JSON to this file; - is standard output.",
            show_default=False,
            allow_leading_hyphen=True,
        ),
    ] = ""


def _command() -> ModuleType:
    try:
        return import_module("dspm.bench.ycsb.command")
    except ModuleNotFoundError as error:
        raise UsageError(f"dspm ycsb needs the package {error.name}", "pip install 'dspm[bench]'") from error


@app.command
def load(*, options: Options = Options()) -> None:
    """Make the table anew and insert the records."""
    _command().load_phase(options)


@app.command
def run(
    *,
    options: Options = Options(),
    compare: Annotated[bool, Parameter(negative="", help="Measure several targets in turns.")] = False,
    rounds: Annotated[int, Parameter(help="Rounds of a comparison.")] = 3,
    plot: Annotated[Path | None, Parameter(help="Draw the comparison into this .svg or .png file.")] = None,
) -> None:
    """Run a workload against a loaded table; with --compare, load and run against several targets."""
    if compare:
        _command().run_comparison(options, rounds, plot)
    elif plot is not None:
        raise UsageError("--plot draws a comparison", "add --compare")
    else:
        _command().run_phase(options)


if __name__ == "__main__":
    app()
