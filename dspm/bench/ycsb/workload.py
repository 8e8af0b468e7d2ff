"""The six core workloads of YCSB: what is done in which proportion, to which records.

Source: Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010, and the files workloads/workloada to
workloadf of YCSB 0.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dspm.errors import UsageError

SCAN_LENGTH_MAX = 100


class Op(StrEnum):
    """An operation, named as in YCSB's summary."""

    READ = "READ"
    UPDATE = "UPDATE"
    INSERT = "INSERT"
    SCAN = "SCAN"
    READ_MODIFY_WRITE = "READ-MODIFY-WRITE"


class Distribution(StrEnum):
    """Which records are asked for."""

    ZIPFIAN = "zipfian"
    LATEST = "latest"


@dataclass(frozen=True)
class Workload:
    """Operations with their proportions, in the order in which YCSB's chooser holds them."""

    name: str
    title: str
    mix: tuple[tuple[Op, float], ...]
    distribution: Distribution

    def proportion(self, op: Op) -> float:
        """The share of `op`, 0 to 1."""
        return dict(self.mix).get(op, 0.0)

    @property
    def inserts(self) -> bool:
        """Whether the table grows."""
        return self.proportion(Op.INSERT) > 0


_ZIPFIAN, _LATEST = Distribution.ZIPFIAN, Distribution.LATEST

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("a", "update heavy", ((Op.READ, 0.5), (Op.UPDATE, 0.5)), _ZIPFIAN),
        Workload("b", "read mostly", ((Op.READ, 0.95), (Op.UPDATE, 0.05)), _ZIPFIAN),
        Workload("c", "read only", ((Op.READ, 1.0),), _ZIPFIAN),
        Workload("d", "read latest", ((Op.READ, 0.95), (Op.INSERT, 0.05)), _LATEST),
        Workload("e", "short ranges", ((Op.INSERT, 0.05), (Op.SCAN, 0.95)), _ZIPFIAN),
        Workload("f", "read-modify-write", ((Op.READ, 0.5), (Op.READ_MODIFY_WRITE, 0.5)), _ZIPFIAN),
    )
}


def workload_named(name: str) -> Workload:
    """The workload `name`: a to f, or workloada to workloadf."""
    found = WORKLOADS.get(name.lower().removeprefix("workload"))
    if found is None:
        raise UsageError(f"there is no workload {name!r}; the workloads are a, b, c, d, e and f", "try --workload a")
    return found


def choose(mix: tuple[tuple[Op, float], ...], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each uniform number the index in `mix`, by YCSB's `DiscreteGenerator`: subtract weights until one exceeds."""
    total = sum(weight for _, weight in mix)
    rest = uniforms.copy()
    chosen = np.full(uniforms.shape, len(mix) - 1, dtype=np.int64)
    undecided = np.ones(uniforms.shape, dtype=np.bool_)
    for index, (_, weight) in enumerate(mix):
        hit = undecided & (rest < weight / total)
        chosen[hit] = index
        undecided &= ~hit
        rest -= weight / total
    return chosen
