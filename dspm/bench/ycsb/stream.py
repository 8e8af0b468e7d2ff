"""The operations of one process, made before the clock starts.

Key numbers follow YCSB's generators exactly (see `scrambled` and `latest`). Where YCSB's threads share one counter of
inserted records, processes take turns here (see `insert_numbers`): no lock is needed, the records of a whole run have
no gaps, and the newest record is known while the processes keep pace.
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
    inserts: list[list[int]]
    """For each process of the run the records that it inserts, and last the first record that nobody inserts."""

    def __len__(self) -> int:
        return len(self.ops)


def process_seed(seed: int, process: int) -> int:
    """The seed of a process. Process 0 has the user's; the others are far from it and from each other."""
    return seed if process == 0 else fnvhash64((seed << 16) + process)


def _chooser(settings: Settings, process: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(process_seed(settings.seed, process)))


def _choose_ops(settings: Settings, process: int, chooser: np.random.Generator) -> NDArray[np.int64]:
    """The operations as indices into the mix: the first thing that a process draws."""
    return choose(settings.workload.mix, chooser.random(settings.share(settings.operations, process)))


def insert_numbers(settings: Settings, first_insert: int) -> list[list[int]]:
    """The records that each process inserts, and after them the first record that nobody inserts.

    Turn by turn each process that has inserts left takes the next number. All can tell, for streams depend on the seed.
    """
    mix = settings.workload.mix
    counts = np.zeros(settings.clients, dtype=np.int64)
    if settings.workload.inserts:
        place = next(index for index, (op, _) in enumerate(mix) if op is Op.INSERT)
        for process in range(settings.clients):
            counts[process] = (_choose_ops(settings, process, _chooser(settings, process)) == place).sum()
    end = first_insert + int(counts.sum())
    return [[*_turns(counts, process, first_insert).tolist(), end] for process in range(settings.clients)]


def _turns(counts: NDArray[np.int64], process: int, first_insert: int) -> NDArray[np.int64]:
    turns = np.arange(counts[process], dtype=np.int64)
    numbers = np.full(len(turns), first_insert, dtype=np.int64)
    for other, count in enumerate(counts.tolist()):
        numbers += np.minimum(count, turns + (1 if other < process else 0))
    return numbers


def make_stream(settings: Settings, process: int, first_insert: int) -> Stream:
    """The stream of `process`; the table holds records 0 to `first_insert` - 1 when the run begins."""
    chooser = _chooser(settings, process)
    ops = [settings.workload.mix[index][0] for index in _choose_ops(settings, process, chooser).tolist()]
    fields = chooser.integers(0, settings.fields, size=len(ops))
    lengths = chooser.integers(1, SCAN_LENGTH_MAX + 1, size=len(ops))
    inserting = np.array([op is Op.INSERT for op in ops], dtype=np.bool_)
    inserts = insert_numbers(settings, first_insert)
    before: NDArray[np.int64] = np.cumsum(inserting, dtype=np.int64) - inserting
    numbers = np.array(inserts[process], dtype=np.int64)[before]
    newest = numbers[~inserting] - 1
    random = JavaRandom(process_seed(settings.seed, process))
    relative = settings.workload.distribution is Distribution.LATEST
    if relative:
        numbers[~inserting] = SkewedLatest(first_insert - 1, random).distances(newest.tolist())
    else:
        numbers[~inserting] = _zipfian_numbers(settings, first_insert, newest, random)
    return Stream(ops, numbers, fields, lengths, relative, inserts)


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
        fitting: NDArray[np.int64] = candidates[candidates <= newest[0]]
        return fitting[: len(newest)]
    limits: list[int] = newest.tolist()
    accepted: list[int] = []
    for candidate in candidates.tolist():
        if len(accepted) == len(limits):
            break
        if candidate <= limits[len(accepted)]:
            accepted.append(candidate)
    return np.array(accepted, dtype=np.int64)
