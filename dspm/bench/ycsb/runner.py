"""Loads a database and runs a workload against it: the programmatic interface.

from dspm.bench.ycsb.runner import Settings, load, run

settings = Settings(records=10_000, operations=50_000, processes=4)
load(settings, "tmpfs")
result = run(settings, "tmpfs")
print(result.throughput, result.verified)
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dspm.bench.ycsb.bindings import Facts, NoopBinding, check_binding
from dspm.bench.ycsb.counters import InsertCounters
from dspm.bench.ycsb.dataset import check_cluster, is_there
from dspm.bench.ycsb.disk import fdatasync_p50_us
from dspm.bench.ycsb.expectation import Expectation
from dspm.bench.ycsb.histogram import merge_histograms
from dspm.bench.ycsb.messages import ClientsTask, InspectTask, LoadTask, PhaseOutcome, RunTask, VerifyTask
from dspm.bench.ycsb.pool import Pool, run_task
from dspm.bench.ycsb.result import Result
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import NOOP, Target, location, prepare_directory, remove_files, target_named
from dspm.bench.ycsb.timing import NS_PER_S
from dspm.bench.ycsb.verify import Verification
from dspm.bench.ycsb.workload import Op
from dspm.errors import DataError, DspmError

__all__ = ["Settings", "check", "load", "run"]

Client = TypeVar("Client", LoadTask, RunTask)
NS_PER_MS = 1_000_000
NO_RUN = "none"
"""Stands for the run while loading, which has no other writes than those of the load."""


def load(settings: Settings, target: str = "dspm", *, verify: bool = True) -> Result:
    """Makes the table anew, in place of the one that is there, and inserts records 0 to `settings.records` - 1.

    Interrupted, it raises KeyboardInterrupt with a text that says what is left and how to remove it.
    """
    place = _prepare(settings, target)
    try:
        return _load(settings, place, verify)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*_left_behind(settings, place)) from None


def _load(settings: Settings, place: Target, verify: bool) -> Result:
    if place.is_file:
        remove_files(location(place, settings))
    _inspect(settings, place, create=True)
    clients = [LoadTask(settings, place, client) for client in range(settings.clients)]
    tasks = [ClientsTask(tuple(each)) for each in _by_process(settings, clients)]
    fdatasync_us = fdatasync_p50_us(settings.directory)
    with Pool(tasks) as pool:
        pool.start_together()
        outcomes: list[PhaseOutcome] = [one for each in pool.results() for one in each]
    whole = sum(outcome.operations for outcome in outcomes) == settings.records
    expectation = Expectation(NO_RUN, settings.records, counts_changes=False)
    checked = _verify(settings, place, expectation) if verify and whole else None
    facts = _inspect(settings, place)
    return _result("load", settings, place, facts, outcomes, fdatasync_us, checked)


def _left_behind(settings: Settings, place: Target) -> list[str]:
    if place.name == NOOP:
        return []
    where = location(place, settings)
    remove = f"rm {shlex.quote(where)}*" if place.is_file else f"dspm rm {shlex.quote(where)}"
    return [f"{where} is half loaded; `dspm ycsb load` loads it anew, `{remove}` removes it"]


def run(settings: Settings, target: str = "dspm", *, verify: bool = True) -> Result:
    """Runs the workload against a loaded table, then reads everything back.

    Interrupted among its operations, it returns what they were until then (`interrupted`), and reads nothing back.
    """
    place = _prepare(settings, target)
    if not _is_there(settings, place):
        which = f"--target {place.name} --db {shlex.quote(settings.db)}"
        raise DataError(f"there is no {location(place, settings)}", f"load it: dspm ycsb load {which}")
    facts = _inspect(settings, place)
    first_insert = _first_insert(settings, place, facts)
    run_name = secrets.token_hex(4)
    fdatasync_us = fdatasync_p50_us(settings.directory)
    with tempfile.TemporaryDirectory(prefix="dspm-ycsb-", dir=_scratch()) as scratch:
        counters = Path(scratch) / "inserts"
        InsertCounters.create(counters, settings.clients)
        with Pool(_run_tasks(settings, place, first_insert, run_name, counters)) as pool:
            pool.start_together()
            pool.start_together()
            results, interrupted = pool.results_until_interrupted()
    outcomes: list[PhaseOutcome] = [one for each in results for one in each]
    written = tuple(outcome.written for outcome in outcomes)
    expectation = Expectation(run_name, first_insert, _counts_changes(settings), written)
    checked = None
    try:
        checked = _verify(settings, place, expectation) if verify and not interrupted else None
    except KeyboardInterrupt:
        interrupted = True
    return replace(_result("run", settings, place, facts, outcomes, fdatasync_us, checked), interrupted=interrupted)


def check(results: Sequence[Result]) -> None:
    """Raises DataError if anything written could not be read back, DspmError if operations failed."""
    for result in results:
        found = result.verification
        if found is not None and not found.ok:
            raise DataError(
                f"target {result.target.name} failed verification: {found.missing} missing, {found.corrupt} corrupt, "
                f"{found.stale} stale, {found.lost} lost, {found.unexpected} unexpected",
                "; ".join([*found.examples, *filter(None, [result.last_error])]),
            )
        if result.errors:
            raise DspmError(
                f"target {result.target.name}: {result.errors} of {result.operations} operations failed",
                f"the last of them: {result.last_error}",
            )


def _prepare(settings: Settings, target: str) -> Target:
    check_binding(settings.binding)
    place = target_named(target, settings.binding)
    prepare_directory(place, settings)
    if place.reports_itself:
        check_cluster()
    return place


def _is_there(settings: Settings, place: Target) -> bool:
    if place.reports_itself:
        return is_there(location(place, settings))
    return not place.is_file or Path(location(place, settings)).exists()


def _inspect(settings: Settings, place: Target, *, create: bool = False) -> Facts:
    if place.name == NOOP:
        return NoopBinding().facts()
    facts: Facts = run_task(InspectTask(settings, place, create))
    return facts


def _scratch() -> str | None:
    """Shared memory if there is some: the counters are mapped, and need not reach a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _by_process(settings: Settings, clients: Sequence[Client]) -> Iterator[Sequence[Client]]:
    """The clients of each process."""
    return (clients[first : first + settings.threads] for first in range(0, len(clients), settings.threads))


def _run_tasks(
    settings: Settings, place: Target, first_insert: int, run_name: str, counters: Path
) -> list[ClientsTask]:
    numbers = range(settings.clients)
    clients = [RunTask(settings, place, client, first_insert, run_name, counters) for client in numbers]
    return [ClientsTask(tuple(each)) for each in _by_process(settings, clients)]


def _first_insert(settings: Settings, place: Target, facts: Facts) -> int:
    """The number of the first record that the run will insert: earlier runs may have added some to the load."""
    if place.name == NOOP:
        return settings.records
    if facts.records < settings.records:
        raise DataError(
            f"the table holds {facts.records} records, fewer than the {settings.records} asked for",
            f"load them: dspm ycsb load --records {settings.records} --target {place.name}",
        )
    return facts.records


def _counts_changes(settings: Settings) -> bool:
    return settings.workload.proportion(Op.READ_MODIFY_WRITE) > 0 and not settings.workload.proportion(Op.UPDATE)


def _verify(settings: Settings, place: Target, expectation: Expectation) -> Verification | None:
    if place.name == NOOP:
        return None
    found: Verification = run_task(VerifyTask(settings, place, expectation))
    return found


def _result(
    phase: str,
    settings: Settings,
    place: Target,
    facts: Facts,
    outcomes: Sequence[PhaseOutcome],
    fdatasync_us: float,
    verification: Verification | None,
) -> Result:
    span_ns = max(outcome.end_ns for outcome in outcomes) - min(outcome.start_ns for outcome in outcomes)
    operations = sum(outcome.operations for outcome in outcomes)
    names = sorted({name for outcome in outcomes for name in outcome.histograms})
    return Result(
        phase=phase,
        settings=settings,
        target=place,
        facts=facts,
        runtime_ms=span_ns / NS_PER_MS,
        operations=operations,
        throughput=operations * NS_PER_S / span_ns,
        throughput_each=[_rate(one.operations, one.start_ns, one.end_ns) for one in outcomes],
        latencies={
            name: merge_histograms(one.histograms[name] for one in outcomes if name in one.histograms) for name in names
        },
        statuses=_merge_statuses(outcomes),
        retries=sum(outcome.retries for outcome in outcomes),
        last_error=next((outcome.last_error for outcome in outcomes if outcome.last_error), ""),
        noop_throughput=_noop_throughput(outcomes),
        fdatasync_us=fdatasync_us,
        verification=verification,
    )


def _rate(operations: int, start_ns: int, end_ns: int) -> float:
    return operations * NS_PER_S / (end_ns - start_ns) if end_ns > start_ns else 0.0


def _noop_throughput(outcomes: Sequence[PhaseOutcome]) -> float:
    start_ns = min(outcome.noop_start_ns for outcome in outcomes)
    end_ns = max(outcome.noop_end_ns for outcome in outcomes)
    return _rate(sum(outcome.noop_operations for outcome in outcomes), start_ns, end_ns)


def _merge_statuses(outcomes: Sequence[PhaseOutcome]) -> dict[str, dict[str, int]]:
    merged: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        for op, counts in outcome.statuses.items():
            kept = merged.setdefault(op, {})
            for status, count in counts.items():
                kept[status] = kept.get(status, 0) + count
    return merged
