"""YCSB's scrambled zipfian generator: popular items spread over the key space by hashing.

Source: YCSB 0.17, `ScrambledZipfianGenerator`. Zipfian over 10^10 + 1 items (YCSB's bounds are inclusive) with the
precomputed ZETAN, hashed by FNV-1a 64, modulo the size of the key space.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dspm.bench.ycsb.fnv import fnvhash64_array
from dspm.bench.ycsb.java_random import JavaRandom
from dspm.bench.ycsb.zipfian import Zipfian

ITEM_COUNT = 10_000_000_000
ZETAN = 26.46902820178302


class ScrambledZipfian:
    """Numbers of 0..last, both included."""

    def __init__(self, last: int, random: JavaRandom) -> None:
        self._size = last + 1
        self._zipfian = Zipfian(ITEM_COUNT + 1, random, zetan=ZETAN)

    def draw(self, count: int) -> NDArray[np.int64]:
        """The next `count` numbers."""
        return fnvhash64_array(self._zipfian.draw(count)) % self._size
