"""The operations of one process, made before the clock starts.

Key numbers follow YCSB's generators exactly (see `scrambled` and `latest`). Where YCSB's threads share one counter of
inserted records, processes take turns here: insert i of process p of P is record start + i * P + p, so that the counter
needs no lock and the records stay gap-free while the processes keep pace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dspm.bench.ycsb.fnv import fnvhash64
from dspm.bench.ycsb.java_random import JavaRandom
from dspm.bench.ycsb.latest import SkewedLatest
from dspm.bench.ycsb.scrambled import ScrambledZipfian
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.workload import SCAN_LENGTH_MAX, Distribution, Op, choose

INSERT_MARGIN = 2.0
"""YCSB's fudge factor: the key space of a scrambled zipfian makes room for twice the inserts that are expected."""


@dataclass(frozen=True)
class Stream:
    """Columns, one entry an operation."""

    ops: list[Op]
    numbers: NDArray[np.int64]
    """The record number; for reads of the "latest" distribution the distance from the newest record."""
    fields: NDArray[np.int64]
    """The field that a write changes."""
    lengths: NDArray[np.int64]
    """How many records a scan asks for."""
    relative: bool
    """Whether reads count back from the newest record."""

    def __len__(self) -> int:
        return len(self.ops)


def process_seed(seed: int, process: int) -> int:
    """The seed of a process. Process 0 has the user's; the others are far from it and from each other."""
    return seed if process == 0 else fnvhash64((seed << 16) + process)


def make_stream(settings: Settings, process: int, first_insert: int) -> Stream:
    """The stream of `process`; the table holds records 0 to `first_insert` - 1 when the run begins."""
    count = settings.share(settings.operations, process)
    seed = process_seed(settings.seed, process)
    chooser = np.random.Generator(np.random.PCG64(seed))
    mix = settings.workload.mix
    ops = [mix[index][0] for index in choose(mix, chooser.random(count)).tolist()]
    fields = chooser.integers(0, settings.fields, size=count)
    lengths = chooser.integers(1, SCAN_LENGTH_MAX + 1, size=count)
    inserting = np.array([op is Op.INSERT for op in ops], dtype=np.bool_)
    before = np.cumsum(inserting) - inserting
    newest = first_insert - 1 + before * settings.processes
    numbers = first_insert + before * settings.processes + process
    random = JavaRandom(seed)
    relative = settings.workload.distribution is Distribution.LATEST
    if relative:
        drawn = SkewedLatest(first_insert - 1, random).distances(newest[~inserting].tolist())
        numbers[~inserting] = drawn
    else:
        numbers[~inserting] = _zipfian_numbers(settings, first_insert, newest[~inserting], random)
    return Stream(ops, numbers, fields, lengths, relative)


def _zipfian_numbers(
    settings: Settings, first_insert: int, newest: NDArray[np.int64], random: JavaRandom
) -> NDArray[np.int64]:
    """Scrambled zipfian numbers, drawn again (as YCSB does) while the record is newer than `newest`."""
    expected = int(settings.operations * settings.workload.proportion(Op.INSERT) * INSERT_MARGIN)
    generator = ScrambledZipfian(first_insert + expected, random)
    accepted = np.empty(0, dtype=np.int64)
    while len(accepted) < len(newest):
        accepted = np.concatenate([accepted, _accept(generator.draw(len(newest)), newest[len(accepted) :])])
    return accepted


def _accept(candidates: NDArray[np.int64], newest: NDArray[np.int64]) -> NDArray[np.int64]:
    """The candidates that serve the next operations, in order: each operation takes the first that exists for it."""
    if len(newest) and newest[0] == newest[-1]:
        return candidates[candidates <= newest[0]][: len(newest)]
    limits, accepted = newest.tolist(), []
    for candidate in candidates.tolist():
        if len(accepted) == len(limits):
            break
        if candidate <= limits[len(accepted)]:
            accepted.append(candidate)
    return np.array(accepted, dtype=np.int64)
