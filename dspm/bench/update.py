"""`dspm bench update` and `dspm bench sustained`: one-row UPDATEs of SQLite, one process, autocommit.

The table has 1000 rows of 1000 bytes; an UPDATE writes one row anew, and its commit is two pages or three. Times are in
µs. Whatever is made here has a name of its own and is removed at the end, also after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from dspm.bench.interruption import in_turn
from dspm.bench.native import measure
from dspm.errors import DspmError, UnavailableError

JsonObject = dict[str, Any]
Progress = Callable[[str], None]

ROWS = 1000
ROW_BYTES = 1000
STEP = 7919
"""A prime beside ROWS: all rows in turn, none beside the last."""
BUSY_TIMEOUT_MS = 20_000
MEMORY = Path("/dev/shm")
POLL_SECONDS = 1.0
UPDATE = f"UPDATE t SET v = randomblob({ROW_BYTES}) WHERE n = ?"


class Table:
    """The table, in a database that is open and empty."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._next = 0
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        with db:
            db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, v BLOB)")
            db.executemany("INSERT INTO t VALUES (?, zeroblob(?))", ((n, ROW_BYTES) for n in range(ROWS)))

    def update(self) -> float:
        """One UPDATE; its time in µs."""
        self._next = (self._next + STEP) % ROWS
        start = time.perf_counter_ns()
        self._db.execute(UPDATE, (self._next,))
        return (time.perf_counter_ns() - start) / 1000


def update(rounds: int, samples: int) -> JsonObject:
    """UPDATEs on dspm and on plain SQLite (WAL) on tmpfs, beside the floor: a page to as many processes and back.

    `p50_us`, `tmpfs_us`, `floor_us`, each with `_min` and `_max`, and `ratio`: how many floors an UPDATE takes beyond
    what it takes on tmpfs.
    """
    done: list[tuple[float, float, float]] = []
    with _dspm_table() as table, _tmpfs_table() as plain:

        def one_round(_: int) -> None:
            floor = float(measure("commit", rounds=1, samples=samples)["floor_us"])
            their = statistics.median(plain.update() for _ in range(samples))
            our = statistics.median(table.update() for _ in range(samples))
            done.append((our, their, floor))

        found = in_turn(rounds, one_round)
    for name, values in zip(("p50_us", "tmpfs_us", "floor_us"), zip(*done, strict=True), strict=True):
        found |= {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}
    ratios = [(our - their) / floor for our, their, floor in done]
    found |= {"ratio_min": min(ratios), "ratio_max": max(ratios)}
    return {**found, "ratio": (found["p50_us"] - found["tmpfs_us"]) / found["floor_us"], "rounds": len(done)}


def sustained(seconds: float, intervals: int, progress: Progress) -> JsonObject:
    """UPDATEs without a pause; the figures of each part of the time, and the last part's p50 over the first's.

    `intervals`: objects of `seconds`, `per_s`, `p50_us`, `p99_us`, `max_us`, and `behind`: the most commits that were
    not on the disk of all members yet when a look was taken, once a second.
    """
    parts: list[JsonObject] = []
    with _dspm_table() as table, _behind(table.name) as disk:

        def one_part(number: int) -> None:
            part = _part(table, seconds / intervals) | {"behind": disk.most()}
            parts.append(part)
            p50, p99, most = (part[k] for k in ("p50_us", "p99_us", "max_us"))
            progress(
                f"part {number + 1} of {intervals}: {part['per_s']:,.0f} commits/s, p50 {p50:.0f} µs, "
                f"p99 {p99:.0f} µs, longest {most / 1000:.1f} ms, at most {part['behind']:,} commits not on disk"
            )

        interrupted = in_turn(intervals, one_part)
    ratio = parts[-1]["p50_us"] / parts[0]["p50_us"]
    return {"intervals": parts, "ratio": ratio, "seconds": seconds * len(parts) / intervals, **interrupted}


def _part(table: Table, seconds: float) -> JsonObject:
    times = array("f")
    start = time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        times.append(table.update())
    taken, ordered = now - start, sorted(times)
    at = {f"p{p}_us": ordered[len(ordered) * p // 100] for p in (50, 99)}
    return {"seconds": taken, "per_s": len(ordered) / taken, **at, "max_us": ordered[-1]}


class _DspmTable(Table):
    """The table in a dataset called `name`."""

    def __init__(self, db: apsw.Connection, name: str) -> None:
        super().__init__(db)
        self.name = name


@contextlib.contextmanager
def _dspm_table() -> Iterator[_DspmTable]:
    import dspm
    from dspm.netram.client import ask_any
    from dspm.netram.config import load_cluster
    from dspm.netram.messages import Done, Remove
    from dspm.netram.names import dataset_name

    config = load_cluster()
    name = f"dspm-bench-{secrets.token_hex(8)}.db"
    db = dspm.connect(name)
    try:
        yield _DspmTable(db, name)
    finally:
        db.close()
        ask_any(config, Remove(dataset_name(config.namespace, name)), Done)


@contextlib.contextmanager
def _tmpfs_table() -> Iterator[Table]:
    path = MEMORY / f"dspm-bench-{os.getpid()}-{secrets.token_hex(4)}.db"
    try:
        db = apsw.Connection(str(path))
    except apsw.CantOpenError as e:
        raise DspmError(f"{MEMORY} takes no file: {e}", "the comparison needs a tmpfs there") from e
    try:
        db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        yield Table(db)
    finally:
        db.close()
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)


@contextlib.contextmanager
def _behind(name: str) -> Iterator[_Behind]:
    disk = _Behind(name)
    try:
        yield disk
    finally:
        disk.end()


class _Behind(threading.Thread):
    """Looks once a second how many commits of a dataset are not on disk yet."""

    def __init__(self, name: str) -> None:
        super().__init__(daemon=True, name="dspm-bench-behind")
        self._dataset = name
        self._most = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Until it is told to end."""
        from dspm.netram.config import load_cluster
        from dspm.netram.status import Survey

        config = load_cluster()
        while not self._over.wait(POLL_SECONDS):
            with contextlib.suppress(UnavailableError):
                with Survey(config) as survey:
                    pages = survey.pages(lambda d: d.name.endswith(self._dataset))
                    behind = [d["lsn"] - d["flushed_lsn"] for page in pages for d in survey.datasets(page)]
                self._most = max(self._most, *behind, 0)

    def most(self) -> int:
        """The most since the last call."""
        most, self._most = self._most, 0
        return most

    def end(self) -> None:
        """Ends the looks."""
        self._over.set()
        self.join()
