"""The measurements of `dspm bench`: each a JSON object. Times are in µs, rates per second, MB are 10^6 bytes.

What is compared takes turns within one run, and every figure is the median of its rounds; `…_min` and `…_max` say how
far the rounds lie apart.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dspm.bench import redis
from dspm.bench.interruption import in_turn
from dspm.bench.native import measure
from dspm.bench.ycsb.disk import fdatasync_p50_us
from dspm.bench.ycsb.settings import default_directory

JsonObject = dict[str, Any]
Progress = Callable[[str], None]

CONNECTIONS = 32
PAGE_BYTES = 4096
OPERATIONS_MIN = 1000


def page(rounds: int, samples: int) -> JsonObject:
    """One 4 KiB page that no cache has, read from a node: `floor_us`, `p50_us`, `ratio`, `fdatasync_us`."""
    return _beside_disk("page", rounds, samples)


def commit(rounds: int, samples: int) -> JsonObject:
    """One full page, committed to all its nodes: `floor_us`, `p50_us`, `ratio`, `fdatasync_us`."""
    return _beside_disk("commit", rounds, samples)


def _beside_disk(command: str, rounds: int, samples: int) -> JsonObject:
    found = measure(command, rounds=rounds, samples=samples)
    return {**found, "fdatasync_us": _fdatasync_us()}


def _fdatasync_us() -> float:
    """The disk's mood, on the disk that comparisons use."""
    directory = default_directory()
    try:
        return fdatasync_p50_us(directory)
    except OSError:
        return fdatasync_p50_us(Path(tempfile.gettempdir()))


def scan(rounds: int, mebibytes: int) -> JsonObject:
    """A dataset read once in order by a process that has nothing of it: `mb_per_s`."""
    return measure("scan", rounds=rounds, pages=mebibytes * 2**20 // PAGE_BYTES)


def node(rounds: int, milliseconds: int, pages: int, progress: Progress) -> JsonObject:
    """READs of random pages by one process with 32 connections, and Redis under the same load in the same rounds.

    `ops_per_s`, `redis_ops_per_s` and `ratio`; the last two are None where Redis is not installed.
    """
    with_redis = redis.is_installed()
    if not with_redis:
        progress(redis.HOW_TO_INSTALL)
    done: list[tuple[float, float | None]] = []
    with redis.running(pages) if with_redis else nullcontext() as server:

        def one_round(number: int) -> None:
            progress(f"round {number + 1} of {rounds}")
            once = measure("node", rounds=1, millis=milliseconds, pages=pages, connections=CONNECTIONS)
            our, their = float(once["ops_per_s"]), None
            if server is not None:
                expected = (done[-1][1] if done else None) or our
                their = server.gets_per_s(max(OPERATIONS_MIN, int(expected * milliseconds / 1000)), CONNECTIONS)
            done.append((our, their))

        interrupted = in_turn(rounds, one_round)
    ours, theirs = [our for our, _ in done], [their for _, their in done if their is not None]
    found: JsonObject = {**_spread("ops_per_s", ours), **_spread("redis_ops_per_s", theirs), **interrupted}
    ratios = [our / their for our, their in zip(ours, theirs, strict=False)]
    found |= _spread("ratio", ratios)
    if theirs:
        found["ratio"] = found["ops_per_s"] / found["redis_ops_per_s"]
    return {**found, "rounds": len(done), "connections": CONNECTIONS, "pages": pages}


def _spread(name: str, rounds: Sequence[float]) -> JsonObject:
    if not rounds:
        return {name: None}
    return {name: statistics.median(rounds), f"{name}_min": min(rounds), f"{name}_max": max(rounds)}
