"""Reads every record back and holds it against what was acknowledged.

Faults are counted by kind:

missing      an acknowledged record is not there
corrupt      a value is not whole, or belongs to another record or field
stale        a value is older than a write of its writer that was acknowledged, or an acknowledged write left no trace
lost         read-modify-writes that were acknowledged but overwritten unseen (a lost update)
unexpected   a record that nobody wrote, or that is there twice
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dspm.bench.ycsb.expectation import CellWrites, Expectation
from dspm.bench.ycsb.fnv import KEY_PREFIX, fnvhash64_array, key_name
from dspm.bench.ycsb.value import Stamp, read_stamp

EXAMPLES_MAX = 5


@dataclass
class Verification:
    """The count of each kind of fault, and the first few in words."""

    expected: int = 0
    found: int = 0
    missing: int = 0
    corrupt: int = 0
    stale: int = 0
    lost: int = 0
    unexpected: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything acknowledged is there and sound."""
        return not (self.missing or self.corrupt or self.stale or self.lost or self.unexpected)

    def note(self, example: str) -> None:
        """Keeps the example if there is room."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)


class Verifier:
    """Checks rows one by one, then the set of keys."""

    def __init__(self, expectation: Expectation, fields: int, field_length: int) -> None:
        self._expectation = expectation
        self._fields = fields
        self._length = field_length
        self._result = Verification()
        self._cells: dict[str, dict[int, dict[int, CellWrites]]] = {}
        self._inserts: dict[str, tuple[int, int]] = {}
        self._inserted = [number for one in expectation.written for number in one.inserted]
        self._in_doubt = [number for one in expectation.written for number in one.inserts_in_doubt]
        self._index_writes()

    def _index_writes(self) -> None:
        """Arranges writes by key, for rows come by key."""
        for one in self._expectation.written:
            for (number, column), writes in one.cells.items():
                by_field = self._cells.setdefault(key_name(number), {})
                by_field.setdefault(column, {})[one.process] = writes
            for number, sequence in {**one.inserted, **one.inserts_in_doubt}.items():
                self._inserts[key_name(number)] = (one.process, sequence)

    def verify(self, rows: Iterable[tuple[object, ...]]) -> Verification:
        """Checks all rows, each its key and then its fields."""
        digests: list[int] = []
        for row in rows:
            digests.append(_digest(row[0]))
            self._check_row(row)
        self._check_keys(np.array(digests, dtype=np.int64))
        return self._result

    def _check_keys(self, found: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        result = self._result
        before = np.arange(self._expectation.first_insert, dtype=np.int64)
        numbers = np.concatenate([before, np.array(self._inserted, dtype=np.int64)])
        wanted = fnvhash64_array(numbers)
        allowed = fnvhash64_array(np.array(self._in_doubt, dtype=np.int64))
        missing = numbers[~np.isin(wanted, found)]
        unexpected = found[~np.isin(found, np.concatenate([wanted, allowed]))]
        result.expected, result.found = len(wanted), len(found)
        twice = len(found) - len(np.unique(found))
        result.missing, result.unexpected = len(missing), len(unexpected) + twice
        for number in missing[:EXAMPLES_MAX].tolist():
            result.note(f"record {number} ({key_name(number)}) is missing")
        for digest in unexpected[:EXAMPLES_MAX].tolist():
            result.note(f"{KEY_PREFIX}{digest} was never inserted")

    def _check_row(self, row: tuple[object, ...]) -> None:
        key = str(row[0])
        writes = self._cells.get(key, {})
        insert = self._inserts.get(key)
        if len(row) != self._fields + 1:
            self._result.corrupt += 1
            self._result.note(f"{key} has {len(row) - 1} fields, not {self._fields}")
            return
        for column in range(self._fields):
            stamp = read_stamp(key, column, row[column + 1], self._length)
            if stamp is None:
                self._result.corrupt += 1
                self._result.note(f"{key} field{column} is damaged")
            elif column in writes:
                self._check_written(key, column, stamp, writes[column])
            else:
                self._check_untouched(key, column, stamp, insert)

    def _check_untouched(self, key: str, column: int, stamp: Stamp, insert: tuple[int, int] | None) -> None:
        """A cell that this run only inserted, or did not write at all."""
        ours = stamp.run == self._expectation.run
        if (insert is None and not ours) or (insert is not None and ours and insert == (stamp.writer, stamp.sequence)):
            return
        self._result.stale += 1
        self._result.note(f"{key} field{column} holds a value that nobody left there")

    def _check_written(self, key: str, column: int, stamp: Stamp, writers: dict[int, CellWrites]) -> None:
        acknowledged = sum(writes.acknowledged for writes in writers.values())
        in_doubt = sum(len(writes.in_doubt) for writes in writers.values())
        if stamp.run != self._expectation.run:
            if acknowledged:
                self._result.stale += 1
                self._result.note(f"{key} field{column} shows none of {acknowledged} acknowledged writes")
            return
        writes = writers.get(stamp.writer)
        if writes is None or not _may_be_final(writes, stamp.sequence):
            self._result.stale += 1
            self._result.note(
                f"{key} field{column} holds write {stamp.sequence} of process {stamp.writer}, a stale one"
            )
        elif self._expectation.counts_changes and not acknowledged <= stamp.generation <= acknowledged + in_doubt:
            self._result.lost += max(1, acknowledged - stamp.generation)
            self._result.note(f"{key} field{column} saw {stamp.generation} of {acknowledged} read-modify-writes")


def _may_be_final(writes: CellWrites, sequence: int) -> bool:
    """Whether `sequence` may be a writer's last write: its last acknowledged one, or a later one in doubt."""
    return sequence == writes.last or (sequence > writes.last and sequence in writes.in_doubt)


def _digest(key: object) -> int:
    """The number in a key, or -1 for a key that is none of ours."""
    text = str(key).removeprefix(KEY_PREFIX)
    return int(text) if text.isascii() and text.isdigit() and int(text) < 1 << 63 else -1
