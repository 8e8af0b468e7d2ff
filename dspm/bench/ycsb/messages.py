"""What the parent and its worker processes say to each other, over a pipe, in this order.

A worker receives one task. A `ClientsTask` answers `Ready` before each timed phase and waits for `Go`; every
task ends with its result or a `Failure`. The signal `END_CALLS` has a worker end its timed phase before all is done.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from dspm.bench.ycsb.expectation import Expectation, Written
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import Target
from dspm.errors import DspmError

END_CALLS = signal.SIGUSR1


@dataclass(frozen=True)
class InspectTask:
    """Tells the facts of the database, after making an empty table if `create`; answers Facts."""

    settings: Settings
    target: Target
    create: bool


@dataclass(frozen=True)
class LoadTask:
    """Inserts one client's share of the records; gives a PhaseOutcome."""

    settings: Settings
    target: Target
    process: int


@dataclass(frozen=True)
class RunTask:
    """Does one client's share of the operations; gives a PhaseOutcome."""

    settings: Settings
    target: Target
    process: int
    first_insert: int
    run: str
    counters: Path


@dataclass(frozen=True)
class VerifyTask:
    """Reads everything back; answers Verification."""

    settings: Settings
    target: Target
    expectation: Expectation


@dataclass(frozen=True)
class ClientsTask:
    """The clients of one process, a thread each; answers the list of their results. One is ready when all are."""

    clients: tuple[LoadTask, ...] | tuple[RunTask, ...]


Task = InspectTask | ClientsTask | VerifyTask


@dataclass(frozen=True)
class Ready:
    """The worker waits for `Go`."""


@dataclass(frozen=True)
class Go:
    """The timed phase begins when the machine's monotonic clock shows `start_ns`, in all workers."""

    start_ns: int


@dataclass(frozen=True)
class Failure:
    """The task could not be done."""

    error: DspmError


@dataclass(frozen=True)
class PhaseOutcome:
    """What one process measured. Histograms are encoded, by the name that the summary gives them."""

    process: int
    operations: int
    start_ns: int
    end_ns: int
    histograms: dict[str, bytes]
    statuses: dict[str, dict[str, int]]
    """For each kind of operation how often each status was returned."""
    retries: int
    last_error: str
    written: Written
    noop_operations: int = 0
    noop_start_ns: int = 0
    noop_end_ns: int = 0
