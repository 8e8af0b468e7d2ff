"""`dspm bench wiredtiger`: WiredTiger's files in the cluster, on tmpfs and on the disk, and the floor of two sockets.

A commit is one row of 1 kB, put and committed with a sync of the log; with threads, each has a session and rows of its
own. All of a round take turns. Cold reads and opens are done by a process of their own (`cold`), once a round and
place, on a path that was closed in order. Whatever is made here has a name of its own and is removed at the end.

The calls come from Python: it takes the same few µs on every place, and with threads gives up its lock for each call.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dspm.bench.interruption import in_turn
from dspm.bench.native import measure
from dspm.bench.wiredtiger.cold import Asked, fill
from dspm.bench.wiredtiger.database import Connection, Place, Table
from dspm.bench.wiredtiger.library import Library, find, load
from dspm.bench.ycsb.disk import fdatasync_p50_us
from dspm.bench.ycsb.settings import default_directory
from dspm.errors import DspmError

JsonObject = dict[str, Any]

DSPM, TMPFS, DISK = "dspm", "tmpfs", "disk"
MEMORY = Path("/dev/shm")
TABLE = "table:bench"
ROW_BYTES = 1000
ROWS = 1000
THREADS = 4
CACHE_BYTES = 64 << 20
ROW = os.urandom(ROW_BYTES // 2).hex().encode()


def wiredtiger(rounds: int, samples: int, library: str) -> JsonObject:
    """All figures, each with `_min` and `_max`: of places `commit_us`, `threads_per_s`, `open_us` and `cold_us`, of the
    cluster's store `store_us`, the floor `floor_us`, the disk's `fdatasync_us`, and what the bars are about.
    """
    loaded = load(find(library))
    series: dict[str, list[float]] = {}
    with _places() as (commits, colds, dataset), _opened(loaded, commits) as connections:
        fill(loaded, colds, dataset)

        def one_round(number: int) -> None:
            found = {"floor_us": float(measure("floor", rounds=1, samples=samples, size=ROW_BYTES)["floor_us"])}
            found["fdatasync_us"] = fdatasync_p50_us(default_directory())
            for name, connection in _turned(connections, number):
                found[f"{name}_commit_us"] = _commits(connection, samples)
                found[f"{name}_threads_per_s"] = _threads(connection, samples)
            for name, place in _turned(colds, number):
                found |= {f"{name}_{key}": value for key, value in _cold(loaded, place, "").items()}
            found["store_us"] = _cold(loaded, colds[DSPM], dataset)["cold_us"]
            for name, value in {**found, **_ratios(found)}.items():
                series.setdefault(name, []).append(value)

        interrupted = in_turn(rounds, one_round)
    done = len(series["floor_us"])
    spread = {f"{name}{of}": how(values[:done]) for name, values in series.items() for of, how in _SPREAD.items()}
    return {**spread, "rounds": done, "version": loaded.version, **interrupted}


_SPREAD: dict[str, Callable[[list[float]], float]] = {"": statistics.median, "_min": min, "_max": max}


def _ratios(found: dict[str, float]) -> dict[str, float]:
    """What a round says of each bar."""
    return {
        "beyond_tmpfs": (found["dspm_commit_us"] - found["tmpfs_commit_us"]) / found["floor_us"],
        "threads_ratio": found["dspm_threads_per_s"] / found["tmpfs_threads_per_s"],
        "cold_ratio": found["dspm_cold_us"] / found["store_us"],
        "open_ratio": found["dspm_open_us"] / found["disk_open_us"],
    }


def _turned(places: dict[str, Any], steps: int) -> list[tuple[str, Any]]:
    first = steps % len(places)
    items = list(places.items())
    return items[first:] + items[:first]


def _commits(connection: Connection, samples: int) -> float:
    """The median of a commit, in µs."""
    with contextlib.closing(connection.table(TABLE)) as table:
        return statistics.median(_commit(table, number % ROWS) for number in range(samples))


def _commit(table: Table, number: int) -> float:
    start = time.perf_counter_ns()
    with table.transaction():
        table.put(f"row{number}", ROW)
    return (time.perf_counter_ns() - start) / 1000


def _threads(connection: Connection, samples: int) -> float:
    """Commits a second of several threads together."""
    starts: list[float] = []  # taken before any thread goes on, which this one may not do for a while
    ready = threading.Barrier(THREADS, action=lambda: starts.append(time.perf_counter()))

    def one(thread: int) -> None:
        with contextlib.closing(connection.table(TABLE)) as table:
            ready.wait()
            for number in range(samples):
                _commit(table, (thread + 1) * ROWS + number % ROWS)

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(one, thread) for thread in range(THREADS)]
        for future in futures:
            future.result()
        return THREADS * samples / (time.perf_counter() - starts[0])


def _cold(library: Library, place: Place, dataset: str) -> dict[str, float]:
    """What a process that has nothing yet measures; reading ahead is off, for it does not help reads at random."""
    asked = Asked(str(library.path), place, dataset)
    command = [sys.executable, "-m", "dspm.bench.wiredtiger.cold", asked.text()]
    environment = {**os.environ, "DSPM_CACHE_PREFETCH": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.splitlines()[-1:] or [f"it ended with status {done.returncode}"]
        raise DspmError(f"the process for cold reads failed: {last[0]}", "dspm bench wiredtiger --rounds 1 tries again")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _opened(library: Library, places: dict[str, Place]) -> Iterator[dict[str, Connection]]:
    with contextlib.ExitStack() as stack:
        connections = {}
        for name, place in places.items():
            connections[name] = stack.enter_context(Connection(library, place, CACHE_BYTES))
            with contextlib.closing(connections[name].table(TABLE, create=True)) as table:
                for number in range(ROWS):
                    _commit(table, number)
        yield connections


@contextlib.contextmanager
def _places() -> Iterator[tuple[dict[str, Place], dict[str, Place], str]]:
    """Two places of each kind, and the name of a plain dataset."""
    from dspm.netram.client import ask_any
    from dspm.netram.config import load_cluster
    from dspm.netram.messages import Done, Remove
    from dspm.netram.names import dataset_name

    config = load_cluster()
    names = [f"dspm-bench-{secrets.token_hex(8)}-{what}" for what in ("commit", "cold", "store")]
    default_directory().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        places: list[dict[str, Place]] = []
        for name in names[:2]:
            place = {DSPM: Place(dataset=name, config=str(config.path or ""))}
            for kind, parent in ((TMPFS, MEMORY), (DISK, default_directory())):
                made = tempfile.TemporaryDirectory(prefix="dspm-bench-", dir=parent)
                place[kind] = Place(directory=stack.enter_context(made))
            places.append(place)
        try:
            yield places[0], places[1], names[2]
        finally:
            for name in names:
                with contextlib.suppress(DspmError):
                    ask_any(config, Remove(dataset_name(config.namespace, name)), Done)
