"""`java.util.Random`, bit for bit, a block at a time.

YCSB draws from `ThreadLocalRandom`, which cannot be seeded. Drawing from `java.util.Random` instead makes a run
reproducible, and comparable number by number with YCSB's own generators run over the same source. It is the 48-bit
linear congruential generator that the Java API documents: s' = (s * 0x5DEECE66D + 0xB) mod 2^48, and a double is
(26 high bits << 27 | 27 high bits) * 2^-53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = 0x5DEECE66D
_INCREMENT = 0xB
_MASK_48 = (1 << 48) - 1
_DOUBLE_UNIT = 2.0**-53


class JavaRandom:
    """The sequence of `new java.util.Random(seed).nextDouble()`."""

    def __init__(self, seed: int) -> None:
        self._state = (seed ^ _MULTIPLIER) & _MASK_48

    def next_double(self) -> float:
        """The next double in [0, 1)."""
        return float(self.doubles(1)[0])

    def doubles(self, count: int) -> NDArray[np.float64]:
        """The next `count` doubles."""
        if count == 0:
            return np.empty(0, dtype=np.float64)
        states = self._states(2 * count)
        high = states[0::2] >> np.uint64(22)
        low = states[1::2] >> np.uint64(21)
        return ((high << np.uint64(27)) + low).astype(np.float64) * _DOUBLE_UNIT

    def _states(self, count: int) -> NDArray[np.uint64]:
        """The next `count` states, by doubling: states k..2k-1 are one affine map (of k steps) of states 0..k-1."""
        states = np.empty(count, dtype=np.uint64)
        states[0] = (self._state * _MULTIPLIER + _INCREMENT) & _MASK_48
        factor, offset, done = _MULTIPLIER, _INCREMENT, 1
        mask = np.uint64(_MASK_48)
        while done < count:
            more = min(done, count - done)
            states[done : done + more] = (states[:more] * np.uint64(factor) + np.uint64(offset)) & mask
            offset = (offset * factor + offset) & _MASK_48
            factor = (factor * factor) & _MASK_48
            done += more
        self._state = int(states[-1])
        return states
