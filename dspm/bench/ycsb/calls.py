"""Turns the operations of a stream into calls on a binding, with keys and values made ahead where they are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from dspm.bench.ycsb.bindings.base import Binding, Status
from dspm.bench.ycsb.counters import InsertCounters
from dspm.bench.ycsb.fnv import key_name, key_names
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.stream import Stream
from dspm.bench.ycsb.timing import Call
from dspm.bench.ycsb.value import LOAD_RUN, Stamp, make_value, next_generation
from dspm.bench.ycsb.workload import Op


def make_record(key: str, settings: Settings, stamp: Stamp) -> tuple[str, ...]:
    """A whole record: its key, then its fields."""
    values = (make_value(key, field, stamp, settings.field_length) for field in range(settings.fields))
    return (key, *values)


class CallMaker:
    """Makes the calls of one process of a run."""

    def __init__(
        self, settings: Settings, binding: Binding, stream: Stream, counters: InsertCounters, run: str, process: int
    ) -> None:
        self._settings = settings
        self._binding = binding
        self._stream = stream
        self._counters = counters
        self._run = run
        self._process = process
        self._makers: dict[Op, Callable[[str, int], Call]] = {
            Op.READ: self._read,
            Op.UPDATE: self._update,
            Op.INSERT: self._insert,
            Op.SCAN: self._scan,
            Op.READ_MODIFY_WRITE: self._read_modify_write,
        }

    def calls(self) -> Iterator[Call]:
        """The calls in order. Everything is made before the first is taken, but reads relative to the newest record."""
        if self._stream.relative:
            return iter(self._relative_calls())
        names = key_names(self._stream.numbers)
        return iter([self._makers[op](names[index], index) for index, op in enumerate(self._stream.ops)])

    def _relative_calls(self) -> Iterator[Call]:
        """Reads find out what is newest when they are taken, inserts are made ahead."""
        names = key_names(self._stream.numbers)
        made = {
            index: self._makers[op](names[index], index)
            for index, op in enumerate(self._stream.ops)
            if op is not Op.READ
        }
        return self._interleave(made, self._stream.numbers.tolist())

    def _interleave(self, made: dict[int, Call], distances: list[int]) -> Iterator[Call]:
        newest, read = self._counters.newest, self._binding.read
        for index, distance in enumerate(distances):
            call = made.get(index)
            yield call if call is not None else partial(read, key_name(max(0, newest() - distance)))

    def _stamp(self, index: int, generation: int = 0) -> Stamp:
        return Stamp(self._run, self._process, index + 1, generation)

    def _read(self, key: str, index: int) -> Call:
        return partial(self._binding.read, key)

    def _scan(self, key: str, index: int) -> Call:
        return partial(self._binding.scan, key, int(self._stream.lengths[index]))

    def _update(self, key: str, index: int) -> Call:
        field = int(self._stream.fields[index])
        value = make_value(key, field, self._stamp(index), self._settings.field_length)
        return partial(self._binding.update, key, field, value)

    def _insert(self, key: str, index: int) -> Call:
        return partial(self._insert_now, make_record(key, self._settings, self._stamp(index)))

    def _insert_now(self, record: tuple[str, ...]) -> Status:
        status = self._binding.insert((record,))
        self._counters.acknowledge(self._process)
        return status

    def _read_modify_write(self, key: str, index: int) -> Call:
        field = int(self._stream.fields[index])
        return partial(self._binding.read_modify_write, key, field, partial(self._changed, key, field, index))

    def _changed(self, key: str, field: int, index: int, old: object) -> str:
        stamp = self._stamp(index, next_generation(old, self._run))
        return make_value(key, field, stamp, self._settings.field_length)


def load_calls(settings: Settings, binding: Binding, process: int) -> Iterator[Call]:
    """The inserts of the load phase: the process's slice of the records, `batch` in a transaction, made as taken."""
    start = settings.share_start(settings.records, process)
    stop = start + settings.share(settings.records, process)
    for first in range(start, stop, settings.batch):
        numbers = range(first, min(first + settings.batch, stop))
        stamps = (Stamp(LOAD_RUN, process, number + 1, 0) for number in numbers)
        records = [
            make_record(key_name(number), settings, stamp) for number, stamp in zip(numbers, stamps, strict=True)
        ]
        yield partial(binding.insert, records)
