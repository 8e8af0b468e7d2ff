"""Latencies as an HDR histogram: nanoseconds, three significant digits, 1 ns to one hour.

The histogram package records slowly, so the timed loop only stores numbers; they are counted here afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

LOWEST_NS = 1
HIGHEST_NS = 3_600_000_000_000
SIGNIFICANT_DIGITS = 3
NS_PER_US = 1000.0


@dataclass(frozen=True)
class Latency:
    """The figures of one operation, in µs."""

    count: int
    mean_us: float
    min_us: float
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
    p999_us: float
    max_us: float


def encode_histogram(latencies_ns: NDArray[np.int64]) -> bytes:
    """The histogram of `latencies_ns` in the HDR wire format."""
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
    values, counts = np.unique(np.clip(latencies_ns, LOWEST_NS, HIGHEST_NS), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    encoded: bytes = histogram.encode()
    return encoded


def merge_histograms(parts: Iterable[bytes]) -> Latency:
    """The figures of all parts together."""
    merged = HdrHistogram(LOWEST_NS, HIGHEST_NS, SIGNIFICANT_DIGITS)
    for part in parts:
        merged.decode_and_add(part)
    percentiles = merged.get_percentile_to_value_dict([50.0, 90.0, 95.0, 99.0, 99.9])
    p50, p90, p95, p99, p999 = (percentiles[p] / NS_PER_US for p in (50.0, 90.0, 95.0, 99.0, 99.9))
    return Latency(
        count=int(merged.get_total_count()),
        mean_us=float(merged.get_mean_value()) / NS_PER_US,
        min_us=float(merged.get_min_value()) / NS_PER_US,
        p50_us=p50,
        p90_us=p90,
        p95_us=p95,
        p99_us=p99,
        p999_us=p999,
        max_us=float(merged.get_max_value()) / NS_PER_US,
    )
