"""YCSB's key hash: FNV-1a 64 over the eight little-endian octets of a long, then Java's `Math.abs`.

Source: YCSB 0.17, `site.ycsb.Utils.fnvhash64` and `CoreWorkload.buildKeyName` (Cooper et al., SoCC 2010).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OFFSET_BASIS_64 = 0xCBF29CE484222325
PRIME_64 = 1099511628211
KEY_PREFIX = "user"

_MASK_64 = (1 << 64) - 1
_SIGN_64 = 1 << 63
_OCTETS = 8


def fnvhash64(value: int) -> int:
    """|FNV-1a 64| of `value`, a signed 64-bit number. `Math.abs` keeps the smallest long negative, and so does this."""
    rest = value & _MASK_64
    digest = OFFSET_BASIS_64
    for _ in range(_OCTETS):
        digest = ((digest ^ (rest & 0xFF)) * PRIME_64) & _MASK_64
        rest >>= 8
    if digest == _SIGN_64:
        return -_SIGN_64
    return (1 << 64) - digest if digest & _SIGN_64 else digest


def fnvhash64_array(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same over an array; unsigned 64-bit arithmetic wraps as Java's does, so the results are the same bits."""
    rest = values.astype(np.uint64)
    digest = np.full(values.shape, OFFSET_BASIS_64, dtype=np.uint64)
    prime, octet, shift = np.uint64(PRIME_64), np.uint64(0xFF), np.uint64(8)
    for _ in range(_OCTETS):
        digest = (digest ^ (rest & octet)) * prime
        rest = rest >> shift
    return np.abs(digest.view(np.int64))


def key_name(number: int) -> str:
    """The key of record `number` in YCSB's hashed insert order."""
    return f"{KEY_PREFIX}{fnvhash64(number)}"


def key_names(numbers: NDArray[np.int64]) -> list[str]:
    """The keys of many records."""
    return [f"{KEY_PREFIX}{digest}" for digest in fnvhash64_array(numbers).tolist()]
