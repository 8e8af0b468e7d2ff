"""What the user chooses for a run, checked once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dspm.bench.ycsb.value import FIELD_LENGTH_MAX, FIELD_LENGTH_MIN
from dspm.bench.ycsb.workload import WORKLOADS, Workload, workload_named
from dspm.errors import UsageError

PROCESSES_MAX = 256
THREADS_MAX = 256
RECORDS_MAX = 1_000_000_000
OPERATIONS_MAX = 100_000_000
FIELDS_MAX = 100
PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))


def default_directory() -> Path:
    """Where databases on the local disk go: a directory of this user under /var/tmp, which is seldom a tmpfs."""
    return Path("/var/tmp") / f"dspm-ycsb-{os.getuid()}"


@dataclass(frozen=True)
class Settings:
    """One benchmark's choices. Rates are of all processes together."""

    workload: Workload = WORKLOADS["a"]
    binding: str = "sqlite"
    records: int = 10_000
    operations: int = 100_000
    processes: int = 2
    threads: int = 1
    """Client threads of each process, for a database that has one process at a time."""
    rate_per_s: float = 0.0
    """Operations a second by an open-loop schedule; 0 means as fast as possible."""
    seconds_max: float = 0.0
    """Longest timed phase; 0 means no limit."""
    seed: int = 1
    db: str = "ycsb"
    directory: Path = field(default_factory=default_directory)
    memory_directory: Path = Path("/dev/shm")
    cache_size: int = -2000
    """The database's own cache: pages if positive, KiB if negative (`PRAGMA cache_size`)."""
    page_size: int = 4096
    fields: int = 10
    field_length: int = 100
    batch: int = 1
    """Records in one transaction of the load phase."""
    library: str = ""
    """The database's library, where it is loaded into the client; found if empty."""

    def __post_init__(self) -> None:
        workload_named(self.workload.name)
        _between("--records", self.records, 2, RECORDS_MAX)
        _between("--operations", self.operations, 1, OPERATIONS_MAX)
        _between("--processes", self.processes, 1, PROCESSES_MAX)
        _between("--threads", self.threads, 1, THREADS_MAX)
        _check_clients(self.binding, self.processes, self.threads)
        _between("--fields", self.fields, 1, FIELDS_MAX)
        _between("--field-length", self.field_length, FIELD_LENGTH_MIN, FIELD_LENGTH_MAX)
        _between("--batch", self.batch, 1, RECORDS_MAX)
        _between("--rate", self.rate_per_s, 0, 1e9)
        _between("--seconds", self.seconds_max, 0, 1e9)
        _between("--cache-size", self.cache_size, -(2**31), 2**31 - 1)
        _between("--seed", self.seed, 0, 2**47)
        if self.page_size not in PAGE_SIZES:
            raise UsageError(f"--page-size is {self.page_size}, not a power of two from 512 to 65536", "try 4096")
        if not self.db or "\0" in self.db:
            raise UsageError("--db needs a name", "for example --db ycsb")
        if self.clients > min(self.operations, self.records):
            what = "processes" if self.threads == 1 else "threads"
            raise UsageError(
                f"{self.clients} {what} cannot share {min(self.operations, self.records)} operations or records",
                f"give fewer --{what}, or more --operations and --records",
            )

    @property
    def clients(self) -> int:
        """How many do operations at a time: the threads of all processes. Each has a number, as a process has."""
        return self.processes * self.threads

    @property
    def cache_bytes(self) -> int:
        """`cache_size` in bytes."""
        return self.cache_size * self.page_size if self.cache_size > 0 else -self.cache_size * 1024

    @property
    def clients_text(self) -> str:
        """How many clients, in words."""
        return f"{self.processes} processes" if self.threads == 1 else f"{self.threads} threads of one process"

    def share(self, total: int, process: int) -> int:
        """How many of `total` things fall to the client `process`; the first ones take the rest."""
        return total // self.clients + (1 if process < total % self.clients else 0)

    def share_start(self, total: int, process: int) -> int:
        """How many of `total` things fall to the processes before `process`."""
        return sum(self.share(total, earlier) for earlier in range(process))


def _check_clients(binding: str, processes: int, threads: int) -> None:
    """Refuses clients that the database cannot have."""
    if binding == "wiredtiger" and processes != 1:
        raise UsageError(
            f"--processes is {processes}, but a WiredTiger path belongs to one process at a time",
            "give --processes 1, and --threads for more clients",
        )
    if binding != "wiredtiger" and threads != 1:
        raise UsageError(
            f"--threads is {threads}, but clients of the binding {binding} are processes",
            "give --processes instead of --threads",
        )


def _between(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} is {value:g}, not from {low:g} to {high:g}", f"give {option} within these bounds")
