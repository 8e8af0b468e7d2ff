"""The timed loop of one process: call, take the time, keep the number."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dspm.bench.ycsb.bindings.base import Status

NS_PER_S = 1_000_000_000
SPIN_NS = 100_000
"""The last part of a wait is spun: a sleep of Linux may end this much late."""

Call = Callable[[], Status]

_ended = False


def end_calls(_number: int = 0, _frame: object = None) -> None:
    """Ends this process's timed loop behind the call under way, as if it were the last. Serves as a signal handler."""
    global _ended
    _ended = True


@dataclass(frozen=True)
class Schedule:
    """When operations are due. `interval_ns` is 0 for a closed loop; `limit_ns` 0 means no limit."""

    start_ns: int
    interval_ns: float = 0.0
    offset_ns: float = 0.0
    limit_ns: int = 0


@dataclass(frozen=True)
class Timings:
    """What the loop saw: one entry an operation done, and the span on the machine's monotonic clock."""

    latencies_ns: array[int]
    intended_ns: array[int]
    """Latencies from the moment the operation was due; empty in a closed loop."""
    statuses: bytearray
    start_ns: int
    end_ns: int


def sleep_until(due_ns: int) -> None:
    """Waits until the monotonic clock shows `due_ns`."""
    rest_ns = due_ns - time.monotonic_ns()
    if rest_ns > SPIN_NS:
        time.sleep((rest_ns - SPIN_NS) / NS_PER_S)
    while time.monotonic_ns() < due_ns:
        pass


def run_calls(calls: Iterable[Call], schedule: Schedule) -> Timings:
    """Makes the calls in order, each when it is due or, when late, at once. What `calls` itself does is not timed."""
    gc.collect()
    gc.disable()
    try:
        sleep_until(schedule.start_ns)
        return _paced(calls, schedule) if schedule.interval_ns else _closed(calls, schedule)
    finally:
        gc.enable()


def _closed(calls: Iterable[Call], schedule: Schedule) -> Timings:
    latencies, statuses, clock = array("q"), bytearray(), time.monotonic_ns
    stop_ns = schedule.start_ns + schedule.limit_ns if schedule.limit_ns else 1 << 62
    after = clock()
    for call in calls:
        before = clock()
        status = call()
        after = clock()
        latencies.append(after - before)
        statuses.append(status)
        if after >= stop_ns or _ended:
            break
    return Timings(latencies, array("q"), statuses, schedule.start_ns, after)


def _paced(calls: Iterable[Call], schedule: Schedule) -> Timings:
    latencies, intended, statuses, clock = array("q"), array("q"), bytearray(), time.monotonic_ns
    stop_ns = schedule.start_ns + schedule.limit_ns if schedule.limit_ns else 1 << 62
    after = clock()
    for index, call in enumerate(calls):
        due = schedule.start_ns + int(schedule.offset_ns + index * schedule.interval_ns)
        if due >= stop_ns:
            break
        sleep_until(due)
        before = clock()
        status = call()
        after = clock()
        latencies.append(after - before)
        intended.append(after - due)
        statuses.append(status)
        if after >= stop_ns or _ended:
            break
    return Timings(latencies, intended, statuses, schedule.start_ns, after)
