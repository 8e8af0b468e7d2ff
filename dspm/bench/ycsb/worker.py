"""A worker process: `python -m dspm.bench.ycsb.worker FD`, where FD is its end of a pipe. Started by `pool`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from dspm.bench.ycsb.bindings import Binding, Facts, NoopBinding, Status, open_binding
from dspm.bench.ycsb.calls import CallMaker, load_calls
from dspm.bench.ycsb.counters import InsertCounters
from dspm.bench.ycsb.expectation import Written, collect_writes
from dspm.bench.ycsb.fnv import key_name
from dspm.bench.ycsb.histogram import encode_histogram
from dspm.bench.ycsb.messages import (
    END_CALLS,
    ClientsTask,
    Failure,
    Go,
    InspectTask,
    LoadTask,
    PhaseOutcome,
    Ready,
    RunTask,
    Task,
    VerifyTask,
)
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.stream import Stream, make_stream
from dspm.bench.ycsb.timing import NS_PER_S, Schedule, Timings, end_calls, run_calls
from dspm.bench.ycsb.verify import Verification, Verifier
from dspm.bench.ycsb.workload import Op
from dspm.errors import DataError, DspmError

INTENDED = "Intended-"
FAILED = "-FAILED"
CLEANUP = "CLEANUP"
NOOP_OPERATIONS_MAX = 20_000
"""How much of the stream the no-op pass runs: enough for a rate, short beside the run itself."""

Wait = Callable[[], int]
"""Says that this process is ready, waits for the others, and returns the start on the monotonic clock in ns."""


def perform(task: Task, wait: Wait) -> Facts | list[PhaseOutcome] | Verification:
    """Does one task."""
    match task:
        case InspectTask():
            return inspect(task)
        case ClientsTask():
            return _together(task, wait)
        case VerifyTask():
            return verify(task)


def _together(task: ClientsTask, wait: Wait) -> list[PhaseOutcome]:
    """A thread for each client; the process is ready when all are. One alone needs none."""
    if len(task.clients) == 1:
        return [_client(task.clients[0], wait)]
    starts: list[int] = []
    barrier = threading.Barrier(len(task.clients), action=lambda: starts.append(wait()))

    def wait_for_all() -> int:
        barrier.wait()
        return starts[-1]

    def one(client: LoadTask | RunTask) -> PhaseOutcome:
        try:
            return _client(client, wait_for_all)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(task.clients)) as threads:
        futures = [threads.submit(one, client) for client in task.clients]
        wait_for_futures(futures)
    failures = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def _client(task: LoadTask | RunTask, wait: Wait) -> PhaseOutcome:
    return load(task, wait) if isinstance(task, LoadTask) else run(task, wait)


def inspect(task: InspectTask) -> Facts:
    """Makes the table if asked to, and tells the facts."""
    binding = open_binding(task.settings, task.target)
    try:
        if task.create:
            binding.create(task.settings.fields)
        facts = binding.facts()
        _check_gaps(binding, task.settings.records, facts.records)
        return facts
    finally:
        binding.close()


def _check_gaps(binding: Binding, loaded: int, found: int) -> None:
    """Refuses a table where a run that did not end left gaps: records beyond those loaded must follow one another."""
    for number in range(loaded, found):
        if binding.read(key_name(number)) is not Status.OK:
            raise DataError(
                f"the table holds {found} records, but not record {number}: a run on it was interrupted, "
                "or it was loaded with more --records",
                "load it again: dspm ycsb load",
            )


def load(task: LoadTask, wait: Wait) -> PhaseOutcome:
    """Inserts this process's share of the records, timed."""
    settings = task.settings
    binding = open_binding(settings, task.target)
    try:
        calls = load_calls(settings, binding, task.process)
        timings = run_calls(calls, _schedule(settings, task.process, wait(), settings.batch))
    finally:
        binding.close()
    ops = [Op.INSERT] * len(timings.statuses)
    records = min(len(ops) * settings.batch, settings.share(settings.records, task.process))
    return _outcome(task.process, records, ops, timings, binding, Written(task.process))


def run(task: RunTask, wait: Wait) -> PhaseOutcome:
    """Runs this process's share of the operations, first against nothing and then against the target, both timed."""
    settings = task.settings
    stream = make_stream(settings, task.process, task.first_insert)
    noop = _noop_pass(task, stream, wait)
    binding = open_binding(settings, task.target)
    try:
        with InsertCounters(task.counters, stream.inserts) as counters:
            calls = CallMaker(settings, binding, stream, counters, task.run, task.process).calls()
            timings = run_calls(calls, _schedule(settings, task.process, wait()))
    finally:
        closing_ns = _close(binding)
    written = collect_writes(stream, timings.statuses, task.process)
    outcome = _outcome(task.process, len(timings.statuses), stream.ops, timings, binding, written)
    outcome.histograms[CLEANUP] = encode_histogram(np.array([closing_ns], dtype=np.int64))
    return replace(outcome, noop_operations=len(noop.statuses), noop_start_ns=noop.start_ns, noop_end_ns=noop.end_ns)


def _noop_pass(task: RunTask, stream: Stream, wait: Wait) -> Timings:
    """The same operations, with counters of its own that nobody reads."""
    count = min(len(stream), NOOP_OPERATIONS_MAX)
    short = replace(stream, ops=stream.ops[:count], numbers=stream.numbers[:count])
    private = task.counters.with_name(f"{task.counters.name}-{task.process}")
    InsertCounters.create(private, task.settings.clients)
    with InsertCounters(private, stream.inserts) as counters:
        maker = CallMaker(task.settings, NoopBinding(), short, counters, task.run, task.process)
        return run_calls(maker.calls(), Schedule(wait()))


def verify(task: VerifyTask) -> Verification:
    """Reads everything back."""
    binding = open_binding(task.settings, task.target)
    try:
        verifier = Verifier(task.expectation, task.settings.fields, task.settings.field_length)
        return verifier.verify(binding.rows())
    finally:
        binding.close()


def _schedule(settings: Settings, process: int, start_ns: int, batch: int = 1) -> Schedule:
    """The process's part of the common schedule; processes take turns at the rate asked for."""
    limit_ns = int(settings.seconds_max * NS_PER_S)
    if not settings.rate_per_s:
        return Schedule(start_ns, limit_ns=limit_ns)
    turn_ns = NS_PER_S * batch / settings.rate_per_s
    return Schedule(start_ns, turn_ns * settings.clients, turn_ns * process, limit_ns)


def _close(binding: Binding) -> int:
    """Closes, and returns how long that took in ns."""
    timings = run_calls([lambda: binding.close() or Status.OK], Schedule(0))
    return timings.latencies_ns[0]


def _outcome(
    process: int, operations: int, ops: list[Op], timings: Timings, binding: Binding, written: Written
) -> PhaseOutcome:
    latencies = np.array(timings.latencies_ns, dtype=np.int64)
    intended = np.array(timings.intended_ns, dtype=np.int64)
    status_codes = np.frombuffer(bytes(timings.statuses), dtype=np.uint8)
    codes = np.array(ops[: len(status_codes)], dtype=np.str_)
    histograms: dict[str, bytes] = {}
    statuses: dict[str, dict[str, int]] = {}
    for op in Op:
        of_op = codes == op.value
        for name, chosen in ((op.value, of_op & (status_codes == 0)), (op.value + FAILED, of_op & (status_codes != 0))):
            if chosen.any():
                histograms[name] = encode_histogram(latencies[chosen])
                if len(intended):
                    histograms[INTENDED + name] = encode_histogram(intended[chosen])
        counts = {status.name: int((of_op & (status_codes == status)).sum()) for status in Status}
        if any(counts.values()):
            statuses[op.value] = {name: count for name, count in counts.items() if count}
    return PhaseOutcome(
        process, operations, timings.start_ns, timings.end_ns, histograms, statuses, binding.retries,
        binding.last_error, written,
    )  # fmt: skip


def _handshake(connection: Connection) -> Wait:
    def wait() -> int:
        connection.send(Ready())
        go = connection.recv()
        assert isinstance(go, Go)
        return go.start_ns

    return wait


def main() -> None:
    """Serves the one task that comes through the pipe. An interrupt is the parent's to handle: it ends its workers, or
    has them end their loops and tell what they measured.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(END_CALLS, end_calls)
    with suppress(BrokenPipeError, EOFError), Connection(int(sys.argv[1])) as connection:
        task: Task = connection.recv()
        try:
            connection.send(perform(task, _handshake(connection)))
        except (EOFError, BrokenPipeError):
            return
        except DspmError as error:
            connection.send(Failure(error))
        except Exception as error:  # noqa: BLE001 - handed to the parent, which raises it
            connection.send(Failure(DspmError(f"a worker process failed: {type(error).__name__}: {error}")))


if __name__ == "__main__":
    main()
