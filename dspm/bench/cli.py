"""The command `dspm bench`: its arguments and its tables. What it does is in `measure`, imported when it is wanted."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from dspm.bench.interruption import end, measured
from dspm.cli.output import print_json, print_table
from dspm.errors import UsageError

app = App(
    name="bench",
    help="Measure the cluster against the machine's own floor: sockets and nothing else.",
    suppress_keyboard_interrupt=False,
)

Json = Annotated[bool, Parameter(negative="", help="Print the figures as JSON.")]
Rounds = Annotated[int, Parameter(help="Rounds; every figure is their median.")]
Samples = Annotated[int, Parameter(help="Operations of a round, after as many of the floor.")]

COLUMNS = ("", "median", "lowest", "highest", "unit")
RIGHT = frozenset({"median", "lowest", "highest"})
ROUNDS_MAX = 10_000

Row = tuple[str, str, str]
"""A figure's name in words, its key in the JSON object, and its unit."""

LATENCY: tuple[Row, ...] = (("p50", "p50_us", "µs"), ("floor", "floor_us", "µs"), ("ratio", "ratio", "× floor"))
PLACES = ("dspm", "tmpfs", "disk")
WIREDTIGER: list[Row] = [
    *((f"commit of 1 kB, p50: {place}", f"{place}_commit_us", "µs") for place in PLACES),
    ("floor: 1 kB to two sockets", "floor_us", "µs"),
    ("dspm beyond tmpfs", "beyond_tmpfs", "× floor"),
    *((f"four threads: {place}", f"{place}_threads_per_s", "commits/s") for place in PLACES),
    ("dspm beside tmpfs", "threads_ratio", "× tmpfs"),
    *((f"cold read of 32 KiB, p50: {place}", f"{place}_cold_us", "µs") for place in PLACES),
    ("the store's own read of 32 KiB", "store_us", "µs"),
    ("dspm beside the store", "cold_ratio", "× store"),
    *((f"open of a clean path: {place}", f"{place}_open_us", "µs") for place in PLACES),
    ("dspm beside the disk", "open_ratio", "× disk"),
    ("fdatasync of 4 KiB", "fdatasync_us", "µs"),
]
DISK: Row = ("fdatasync of 4 KiB", "fdatasync_us", "µs")


@app.command
def page(*, rounds: Rounds = 31, samples: Samples = 200, json: Json = False) -> None:
    """One 4 KiB page read from a node, against a bare socket: 32 bytes there, 4 KiB back."""
    from dspm.bench import measure

    _check(rounds=rounds, samples=samples)
    found = measured(measure.page, rounds, samples)
    _report(found, "a 4 KiB page that no cache has, read from a node", [*LATENCY, DISK], rounds, json)


@app.command
def commit(*, rounds: Rounds = 31, samples: Samples = 200, json: Json = False) -> None:
    """A transaction of one full page, against bare sockets: 4 KiB to as many processes, 32 bytes back from each."""
    from dspm.bench import measure

    _check(rounds=rounds, samples=samples)
    found = measured(measure.commit, rounds, samples)
    where = f"{found['members']} copies, durability {found['durability']}"
    _report(found, f"one full page committed, {where}", [*LATENCY, DISK], rounds, json)


@app.command
def update(*, rounds: Rounds = 15, samples: Samples = 500, json: Json = False) -> None:
    """A one-row UPDATE of SQLite, against plain SQLite (WAL) on tmpfs and the bare sockets of `commit`."""
    from dspm.bench import update as sql

    _check(rounds=rounds, samples=samples)
    found = measured(sql.update, rounds, samples)
    rows = [("p50", "p50_us", "µs"), ("tmpfs", "tmpfs_us", "µs"), ("floor", "floor_us", "µs")]
    _report(found, "one-row UPDATE, autocommit", [*rows, ("beyond tmpfs", "ratio", "× floor")], rounds, json)


@app.command
def sustained(
    *,
    seconds: Annotated[int, Parameter(help="How long.")] = 600,
    intervals: Annotated[int, Parameter(help="Parts of that time, each with figures of its own.")] = 10,
    json: Json = False,
) -> None:
    """One-row UPDATEs without a pause: whether the last ones are as fast as the first, and the disk keeps up."""
    from dspm.bench import update as sql

    _check(seconds=seconds, intervals=intervals)
    found = measured(sql.sustained, seconds, intervals, _progress)
    if json:
        print_json(found)
    else:
        print(f"p50 of the last part: {found['ratio']:.2f} × the first's")
    end(found, len(found["intervals"]), intervals, "parts")


@app.command
def scan(
    *,
    rounds: Rounds = 5,
    mebibytes: Annotated[int, Parameter(help="Size of the dataset; its nodes need as much free memory.")] = 128,
    json: Json = False,
) -> None:
    """A dataset read once from its first page to its last, by a process that has nothing of it."""
    from dspm.bench import measure

    _check(rounds=rounds, mebibytes=mebibytes)
    found = measured(measure.scan, rounds, mebibytes)
    _report(found, f"{mebibytes} MiB read in order, cold", [("rate", "mb_per_s", "MB/s")], rounds, json)


@app.command
def node(
    *,
    rounds: Rounds = 5,
    milliseconds: Annotated[int, Parameter(help="Length of a round, and again for Redis.")] = 1000,
    pages: Annotated[int, Parameter(help="Pages that are read from, and keys of Redis, 4 KiB each.")] = 4096,
    json: Json = False,
) -> None:
    """Random 4 KiB reads of one process with 32 connections, against Redis GET under the same load."""
    from dspm.bench import measure

    _check(rounds=rounds, milliseconds=milliseconds, pages=pages)
    found = measured(measure.node, rounds, milliseconds, pages, _progress)
    rows = [("dspm-node", "ops_per_s", "reads/s"), ("redis-server", "redis_ops_per_s", "GETs/s")]
    _report(
        found,
        f"{found['connections']} connections, one read each",
        [*rows, ("ratio", "ratio", "× Redis")],
        rounds,
        json,
    )


@app.command
def wiredtiger(
    *,
    rounds: Rounds = 5,
    samples: Samples = 500,
    library: Annotated[str, Parameter(help="libwiredtiger.so; found if not given.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """WiredTiger's sync commits, cold reads and opens, against itself on tmpfs and on the disk, and bare sockets."""
    from dspm.bench.wiredtiger import measure

    _check(rounds=rounds, samples=samples)
    found = measured(measure.wiredtiger, rounds, samples, library)
    _report(found, f"WiredTiger {found['version']}, log synced at every commit", WIREDTIGER, rounds, json)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        most = ROUNDS_MAX if name == "rounds" else 2**20
        if not 1 <= number <= most:
            raise UsageError(
                f"--{name} {number}: expected a number from 1 to {most}",
                "`dspm bench COMMAND --help` shows the defaults",
            )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _report(found: dict[str, Any], title: str, rows: list[Row], rounds: int, json: bool) -> None:
    if json:
        print_json(found)
    else:
        cells = [(name, *(_cell(found, key + of) for of in ("", "_min", "_max")), unit) for name, key, unit in rows]
        print_table(f"{title}; {found['rounds']} rounds", COLUMNS, cells, RIGHT)
    end(found, found["rounds"], rounds)


def _cell(found: dict[str, Any], key: str) -> str:
    value = found.get(key)
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


if __name__ == "__main__":
    app()
