"""How many inserts each process has had acknowledged, shared by a mapped file without a lock.

Each process writes only its own 8-byte counter, so a reader sees a slightly old number at worst. From them follows the
newest record below which no insert is outstanding, as YCSB's `AcknowledgedCounterGenerator` tells it.
"""

from __future__ import annotations

import mmap
from operator import getitem
from pathlib import Path
from typing import Self

COUNTER_BYTES = 8


class InsertCounters:
    """The counters of all processes. `inserts` holds the records of each, and last the first that nobody inserts."""

    def __init__(self, path: Path, inserts: list[list[int]]) -> None:
        self._inserts = inserts
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), len(inserts) * COUNTER_BYTES)
        self._counts = memoryview(self._map).cast("q")

    @staticmethod
    def create(path: Path, processes: int) -> None:
        """Makes the file, every counter 0."""
        path.write_bytes(bytes(processes * COUNTER_BYTES))

    def acknowledge(self, process: int) -> None:
        """One more insert of `process` has been answered."""
        self._counts[process] += 1

    def newest(self) -> int:
        """The highest record number up to which every insert has been answered."""
        return min(map(getitem, self._inserts, self._counts)) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._counts.release()
        self._map.close()
