"""What a benchmark found."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from dspm.bench.ycsb.bindings.base import Facts
from dspm.bench.ycsb.histogram import Latency
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import NOOP, Target
from dspm.bench.ycsb.verify import Verification


@dataclass(frozen=True)
class Result:
    """One phase against one target."""

    phase: str
    settings: Settings
    target: Target
    facts: Facts
    runtime_ms: float
    operations: int
    throughput: float
    """Operations a second, of all processes."""
    throughput_each: list[float]
    """Operations a second of each process."""
    latencies: dict[str, Latency]
    statuses: dict[str, dict[str, int]]
    retries: int
    last_error: str
    noop_throughput: float
    """What the same processes reach with the same operations against nothing; 0 if not measured."""
    fdatasync_us: float
    verification: Verification | None
    """None if the target keeps no data."""
    interrupted: bool = False
    """Whether it was ended before all was done."""

    @property
    def errors(self) -> int:
        """Operations that failed."""
        return sum(counts.get("ERROR", 0) for counts in self.statuses.values())

    @property
    def client_share(self) -> float:
        """The share of an operation's time that the client itself needs, 0 to 1; near 1 the client is the limit."""
        return min(1.0, self.throughput / self.noop_throughput) if self.noop_throughput else 0.0

    @property
    def verified(self) -> bool:
        """Whether everything was read back and is sound."""
        return self.verification is not None and self.verification.ok


@dataclass(frozen=True)
class Entry:
    """All rounds against one target."""

    target: Target
    rounds: list[Result] = field(default_factory=list)

    @property
    def throughputs(self) -> list[float]:
        """Operations a second, one entry a round."""
        return [result.throughput for result in self.rounds]

    @property
    def throughput(self) -> float:
        """The median."""
        return statistics.median(self.throughputs)

    @property
    def middle(self) -> Result:
        """The round whose throughput is the median, or just below."""
        return sorted(self.rounds, key=lambda result: result.throughput)[(len(self.rounds) - 1) // 2]

    @property
    def keeps_data(self) -> bool:
        """Whether there is anything to read back."""
        return self.target.name != NOOP

    @property
    def verified(self) -> bool:
        """Whether every round was."""
        return all(result.verified for result in self.rounds)

    def ratios_to(self, base: Entry) -> list[float]:
        """The base's throughput over this one's, round by round."""
        return [ours / theirs for ours, theirs in zip(base.throughputs, self.throughputs, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """Rounds taken in turns. The first entry is what the others are compared with."""

    settings: Settings
    entries: list[Entry]
    interrupted: bool = False
    """Whether it was ended before all rounds were done."""

    @property
    def base(self) -> Entry:
        """The entry that ratios refer to."""
        return self.entries[0]

    def ratio(self, entry: Entry) -> float:
        """The median throughput of the base over that of `entry`."""
        return self.base.throughput / entry.throughput

    @property
    def verified(self) -> bool:
        """Whether every round of every target that keeps data was read back and is sound."""
        return all(entry.verified for entry in self.entries if entry.keeps_data)

    @property
    def client_share(self) -> float:
        """The largest share, 0 to 1, that the client reached of its own ceiling against a target that keeps data."""
        return max((result.client_share for result in self.results if result.target.name != NOOP), default=0.0)

    @property
    def fdatasync_us(self) -> float:
        """The disk's mood: the median over all rounds."""
        return statistics.median(result.fdatasync_us for result in self.results)

    @property
    def results(self) -> list[Result]:
        """Every round of every target."""
        return [result for entry in self.entries for result in entry.rounds]
