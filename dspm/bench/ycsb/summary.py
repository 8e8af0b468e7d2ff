"""YCSB's text summary, line by line as its `TextMeasurementsExporter` writes it.

Latencies are whole µs there, and here. A read-modify-write is one transaction, so it is reported only under its own
name; YCSB also counts its halves under READ and UPDATE.
"""

from __future__ import annotations

from collections.abc import Iterator

from dspm.bench.ycsb.histogram import Latency
from dspm.bench.ycsb.result import Result
from dspm.bench.ycsb.worker import CLEANUP, FAILED, INTENDED


def summary_lines(result: Result) -> Iterator[str]:
    """The summary of one phase."""
    yield f"[OVERALL], RunTime(ms), {result.runtime_ms:.0f}"
    yield f"[OVERALL], Throughput(ops/sec), {result.throughput!r}"
    for name in sorted(result.latencies, key=_order):
        yield from _latency_lines(name, result.latencies[name])
        for status, count in result.statuses.get(name.removeprefix(INTENDED), {}).items():
            yield f"[{name}], Return={status}, {count}"
    for op, counts in result.statuses.items():
        if op not in result.latencies:
            yield from (f"[{op}], Return={status}, {count}" for status, count in counts.items())


def _latency_lines(name: str, latency: Latency) -> Iterator[str]:
    yield f"[{name}], Operations, {latency.count}"
    yield f"[{name}], AverageLatency(us), {latency.mean_us!r}"
    for label, value_us in (
        ("MinLatency", latency.min_us),
        ("MaxLatency", latency.max_us),
        ("50thPercentileLatency", latency.p50_us),
        ("95thPercentileLatency", latency.p95_us),
        ("99thPercentileLatency", latency.p99_us),
    ):
        yield f"[{name}], {label}(us), {value_us:.0f}"


def _order(name: str) -> tuple[bool, bool, bool, str]:
    return (name == CLEANUP, name.startswith(INTENDED), name.endswith(FAILED), name)


def context_lines(result: Result) -> Iterator[str]:
    """What a reader must know beside the figures, in YCSB's form of comment-like sections."""
    facts = result.facts
    yield f"[TARGET], Name, {result.target.name}"
    yield f"[TARGET], Durability, {facts.durability}"
    yield f"[TARGET], Copies, {facts.copies}"
    yield f"[TARGET], DatabaseSize(bytes), {facts.size_bytes}"
    yield f"[DISK], Fdatasync50thPercentile(us), {result.fdatasync_us:.0f}"
    if result.noop_throughput:
        yield f"[CLIENT], NoopThroughput(ops/sec), {result.noop_throughput:.0f}"
        yield f"[CLIENT], Share(%), {100 * result.client_share:.1f}"
    yield f"[CLIENT], Retries, {result.retries}"
    yield from _verification_lines(result)


def _verification_lines(result: Result) -> Iterator[str]:
    found = result.verification
    if found is None:
        yield "[VERIFY], Return=NOT_VERIFIED, 0"
        return
    yield f"[VERIFY], Records, {found.found}"
    yield f"[VERIFY], Missing, {found.missing}"
    yield f"[VERIFY], Corrupt, {found.corrupt}"
    yield f"[VERIFY], Stale, {found.stale}"
    yield f"[VERIFY], Lost, {found.lost}"
    yield f"[VERIFY], Unexpected, {found.unexpected}"
    yield f"[VERIFY], Return={'OK' if found.ok else 'UNEXPECTED_STATE'}, {found.found}"
