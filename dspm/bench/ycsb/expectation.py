"""What the database must hold after a run, from what each process saw acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field

from dspm.bench.ycsb.bindings.base import Status
from dspm.bench.ycsb.stream import Stream
from dspm.bench.ycsb.workload import Op

Cell = tuple[int, int]
"""A record number and a field."""


@dataclass
class CellWrites:
    """One process's writes to one cell: the last one acknowledged (0: none), how many, and those in doubt since."""

    last: int = 0
    acknowledged: int = 0
    in_doubt: list[int] = field(default_factory=list)


@dataclass
class Written:
    """All writes of one process, by the number (from 1) of the operation."""

    process: int
    cells: dict[Cell, CellWrites] = field(default_factory=dict)
    inserted: dict[int, int] = field(default_factory=dict)
    """Record number to operation, acknowledged."""
    inserts_in_doubt: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """What a verifier checks: records 0 to `first_insert` - 1 from before, and the writes of every process."""

    run: str
    first_insert: int
    counts_changes: bool
    """Whether every write was a read-modify-write, so that generations count them."""
    written: tuple[Written, ...] = ()


def collect_writes(stream: Stream, statuses: bytes | bytearray, process: int) -> Written:
    """The writes among the operations done. A write that failed may have happened: it is in doubt."""
    written = Written(process)
    writes = (Op.UPDATE, Op.READ_MODIFY_WRITE)
    for index, status in enumerate(statuses):
        op = stream.ops[index]
        if op in writes:
            cell = (int(stream.numbers[index]), int(stream.fields[index]))
            _note_write(written.cells.setdefault(cell, CellWrites()), index + 1, status)
        elif op is Op.INSERT:
            place = written.inserted if status == Status.OK else written.inserts_in_doubt
            place[int(stream.numbers[index])] = index + 1
    return written


def _note_write(writes: CellWrites, sequence: int, status: int) -> None:
    if status == Status.OK:
        writes.last = sequence
        writes.acknowledged += 1
    elif status == Status.ERROR:
        writes.in_doubt.append(sequence)
