"""Opens a path, and reads blocks that nothing near has: `python -m dspm.bench.wiredtiger.cold ASKED`.

Each value fills one leaf page of WiredTiger, which is one block of 32 KiB of the file, read in one piece. The store's
own read is of as many bytes at as many places of a plain dataset. On local directories the kernel has the file in its
page cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import dspm
from dspm.bench.wiredtiger.database import Connection, Place
from dspm.bench.wiredtiger.library import Library, find, load
from dspm.txn import PAGE_SIZE, PageNo

TABLE = "table:cold"
SCHEMA = "leaf_page_max=32KB,leaf_value_max=64KB"
BLOCK_BYTES = 32 * 1024
BLOCK_PAGES = BLOCK_BYTES // PAGE_SIZE
VALUE_BYTES = 32_000
BLOCKS = 512
READS = 200
CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class Asked:
    """A library and a place; or the name of a plain dataset, to measure the store itself."""

    library: str
    place: Place
    dataset: str

    def text(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Asked:
        """The same, taken apart."""
        fields = json.loads(text)
        return Asked(fields["library"], Place(**fields["place"]), fields["dataset"])


def fill(library: Library, places: dict[str, Place], dataset: str) -> None:
    """Makes what is read: random bytes, closed in order."""
    for place in places.values():
        with (
            Connection(library, place, CACHE_BYTES) as connection,
            contextlib.closing(connection.table(TABLE, create=True, more=SCHEMA)) as table,
        ):
            for number in range(BLOCKS):
                table.put(f"{number:06}", os.urandom(VALUE_BYTES))
    with dspm.Dataset.open(dataset, create=True) as store:
        for number in range(0, BLOCKS * BLOCK_PAGES, 1024):
            with store.transaction() as transaction:
                transaction.write(PageNo(number), os.urandom(1024 * PAGE_SIZE))


def measure(asked: Asked) -> dict[str, float]:
    """`open_us` and `cold_us`; of the store the latter alone."""
    chosen = random.sample(range(BLOCKS), READS + 1)
    if asked.dataset:
        with dspm.Dataset.open(asked.dataset) as store, store.snapshot() as snapshot:
            return {"cold_us": _median(lambda n: snapshot.read(PageNo(n * BLOCK_PAGES), BLOCK_PAGES), chosen)}
    library = load(find(asked.library))
    start = time.perf_counter_ns()
    with Connection(library, asked.place, CACHE_BYTES) as connection:
        open_us = (time.perf_counter_ns() - start) / 1000
        with contextlib.closing(connection.table(TABLE)) as table:
            return {"open_us": open_us, "cold_us": _median(lambda n: table.get(f"{n:06}"), chosen)}


def _median(read: Callable[[int], bytes | None], chosen: list[int]) -> float:
    """Of all but the first read, which finds the way to the data."""
    times = []
    for number in chosen:
        start = time.perf_counter_ns()
        found = read(number)
        times.append((time.perf_counter_ns() - start) / 1000)
        assert found is not None and len(found) >= VALUE_BYTES, number
    return statistics.median(times[1:])


if __name__ == "__main__":
    print(json.dumps(measure(Asked.parse(sys.argv[1]))))
