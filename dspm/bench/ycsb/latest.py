"""YCSB's "latest" generator: the newest record is the most popular.

Source: YCSB 0.17, `SkewedLatestGenerator`: number = newest - zipfian(newest), where *newest* is the highest record
number below which every insert is acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence

from dspm.bench.ycsb.java_random import JavaRandom
from dspm.bench.ycsb.zipfian import Zipfian


class SkewedLatest:
    """Distances from the newest record: 0 is the newest itself."""

    def __init__(self, newest: int, random: JavaRandom) -> None:
        self._zipfian = Zipfian(newest, random)

    def distances(self, newest: Sequence[int]) -> list[int]:
        """One distance for each value that `newest` has when the draw is used."""
        return self._zipfian.draw_growing(newest, len(newest))
