"""YCSB's zipfian generator, item 0 the most popular.

The algorithm is Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994, as in YCSB 0.17's
`ZipfianGenerator`. Arithmetic that decides a result is IEEE double in Java's order. Powers go through `math.pow` one by
one, for numpy's vector power may differ in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dspm.bench.ycsb.java_random import JavaRandom

ZIPFIAN_CONSTANT = 0.99


def zeta(items: int, theta: float, *, start: int = 0, initial: float = 0.0) -> float:
    """The sum of 1 / i^theta for i in start+1..items, added in that order onto `initial`."""
    total = initial
    power = math.pow
    for i in range(start, items):
        total += 1.0 / power(i + 1, theta)
    return total


class Zipfian:
    """Zipfian numbers of 0..items-1, drawn from a `java.util.Random`."""

    def __init__(self, items: int, random: JavaRandom, *, zetan: float | None = None) -> None:
        self._theta = ZIPFIAN_CONSTANT
        self._items = items
        self._random = random
        self._alpha = 1.0 / (1.0 - self._theta)
        self._zeta2 = zeta(2, self._theta)
        self._zetan = zeta(items, self._theta) if zetan is None else zetan
        self._count_for_zeta = items
        self._second = 1.0 + math.pow(0.5, self._theta)
        self._eta = self._compute_eta()

    def _compute_eta(self) -> float:
        return (1.0 - math.pow(2.0 / self._items, 1.0 - self._theta)) / (1.0 - self._zeta2 / self._zetan)

    def _grow(self, items: int) -> None:
        """Extends zeta to more items. As in YCSB, eta keeps the first item count, and fewer items change nothing."""
        if items <= self._count_for_zeta:
            return
        self._zetan = zeta(items, self._theta, start=self._count_for_zeta, initial=self._zetan)
        self._count_for_zeta = items
        self._eta = self._compute_eta()

    def _pick(self, u: float, items: int) -> int:
        uz = u * self._zetan
        if uz < 1.0:
            return 0
        if uz < self._second:
            return 1
        return int(items * math.pow(self._eta * u - self._eta + 1.0, self._alpha))

    def draw(self, count: int) -> NDArray[np.int64]:
        """The next `count` numbers over the items given at the start."""
        u = self._random.doubles(count)
        uz = u * self._zetan
        result = (uz >= 1.0).astype(np.int64)
        tail = np.flatnonzero(uz >= self._second)
        bases = (self._eta * u[tail] - self._eta + 1.0).tolist()
        power, items, alpha = math.pow, self._items, self._alpha
        result[tail] = [int(items * power(base, alpha)) for base in bases]
        return result

    def draw_growing(self, item_counts: Iterable[int], count: int) -> list[int]:
        """One number for each of the `count` item counts, which never fall below the first."""
        numbers = []
        for items, u in zip(item_counts, self._random.doubles(count).tolist(), strict=True):
            self._grow(items)
            numbers.append(self._pick(u, items))
        return numbers
