"""What the user chooses for a run, checked once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dspm.bench.ycsb.value import FIELD_LENGTH_MAX, FIELD_LENGTH_MIN
from dspm.bench.ycsb.workload import WORKLOADS, Workload, workload_named
from dspm.errors import UsageError

PROCESSES_MAX = 256
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
    rate_per_s: float = 0.0
    """Operations a second by an open-loop schedule; 0 means as fast as possible."""
    seconds_max: float = 0.0
    """Longest timed phase; 0 means no limit."""
    seed: int = 1
    db: str = "ycsb"
    directory: Path = field(default_factory=default_directory)
    memory_directory: Path = Path("/dev/shm")
    cache_size: int = -2000
    """`PRAGMA cache_size`: pages if positive, KiB if negative."""
    page_size: int = 4096
    fields: int = 10
    field_length: int = 100
    batch: int = 1
    """Records in one transaction of the load phase."""

    def __post_init__(self) -> None:
        workload_named(self.workload.name)
        _between("--records", self.records, 2, RECORDS_MAX)
        _between("--operations", self.operations, 1, OPERATIONS_MAX)
        _between("--processes", self.processes, 1, PROCESSES_MAX)
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
        if self.processes > min(self.operations, self.records):
            raise UsageError(
                f"{self.processes} processes cannot share {min(self.operations, self.records)} operations or records",
                "give fewer --processes, or more --operations and --records",
            )

    def share(self, total: int, process: int) -> int:
        """How many of `total` things fall to `process`; the first processes take the rest."""
        return total // self.processes + (1 if process < total % self.processes else 0)

    def share_start(self, total: int, process: int) -> int:
        """How many of `total` things fall to the processes before `process`."""
        return sum(self.share(total, earlier) for earlier in range(process))


def _between(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} is {value:g}, not from {low:g} to {high:g}", f"give {option} within these bounds")
