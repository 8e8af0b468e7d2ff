"""The verifier finds every kind of damage, and none where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspm.bench.ycsb.expectation import CellWrites, Expectation, Written, collect_writes
from dspm.bench.ycsb.fnv import key_name
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.stream import make_stream
from dspm.bench.ycsb.value import LOAD_RUN, Stamp, make_value, next_generation, read_stamp
from dspm.bench.ycsb.verify import Verification, Verifier
from dspm.bench.ycsb.workload import WORKLOADS

FIELDS, LENGTH, RECORDS, RUN = 10, 100, 20, "0badcafe"
Table = dict[int, list[object]]


def loaded() -> Table:
    return {number: record(number, Stamp(LOAD_RUN, 0, number + 1, 0)) for number in range(RECORDS)}


def record(number: int, stamp: Stamp) -> list[object]:
    key = key_name(number)
    return [key, *(make_value(key, field, stamp, LENGTH) for field in range(FIELDS))]


def put(table: Table, number: int, field: int, stamp: Stamp) -> None:
    table[number][field + 1] = make_value(key_name(number), field, stamp, LENGTH)


def verify(table: Table, *written: Written, counts_changes: bool = False) -> Verification:
    expectation = Expectation(RUN, RECORDS, counts_changes, written)
    return Verifier(expectation, FIELDS, LENGTH).verify(tuple(row) for row in table.values())


@given(st.integers(0, 10**12), st.integers(0, 99), st.integers(0, 255), st.integers(0, 10**8), st.integers(80, 300))
def test_values_have_their_length_and_name_their_writer(
    number: int, field: int, writer: int, sequence: int, length: int
) -> None:
    key, stamp = key_name(number), Stamp(RUN, writer, sequence, 3)
    value = make_value(key, field, stamp, length)
    assert len(value.encode()) == length
    assert read_stamp(key, field, value, length) == stamp
    assert read_stamp(key, field + 1, value, length) is None
    assert read_stamp(key_name(number + 1), field, value, length) is None


@given(st.integers(0, LENGTH - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_any_changed_character_is_seen(place: int, character: str) -> None:
    value = make_value(key_name(5), 2, Stamp(RUN, 1, 77, 0), LENGTH)
    changed = value[:place] + character + value[place + 1 :]
    assert (read_stamp(key_name(5), 2, changed, LENGTH) is None) == (changed != value)


@pytest.mark.parametrize("value", [None, b"bytes", 7, "", "short", ":" * LENGTH, "x" * LENGTH])
def test_foreign_values_are_damage(value: object) -> None:
    assert read_stamp(key_name(0), 0, value, LENGTH) is None


def test_generations_count_within_a_run() -> None:
    value = make_value(key_name(0), 0, Stamp(RUN, 0, 1, 4), LENGTH)
    assert next_generation(value, RUN) == 5
    assert next_generation(value, "another") == 1
    assert next_generation(None, RUN) == 1


def test_a_sound_table_has_no_fault() -> None:
    found = verify(loaded())
    assert found.ok
    assert (found.expected, found.found) == (RECORDS, RECORDS)


def test_a_missing_record_is_found() -> None:
    table = loaded()
    del table[7]
    found = verify(table)
    assert (found.missing, found.ok) == (1, False)
    assert key_name(7) in found.examples[0]


def test_a_damaged_or_swapped_field_is_found() -> None:
    table = loaded()
    table[3][4] = str(table[3][4])[:-1] + "#"
    table[5][1], table[5][2] = table[5][2], table[5][1]
    table[6][1:] = table[8][1:]
    assert verify(table).corrupt == 1 + 2 + FIELDS


def test_a_record_short_of_fields_is_found() -> None:
    table = loaded()
    table[0].pop()
    assert verify(table).corrupt == 1


def test_an_unexpected_record_is_found() -> None:
    table = loaded()
    table[RECORDS + 5] = record(RECORDS + 5, Stamp(RUN, 0, 1, 0))
    assert verify(table).unexpected == 1


def test_a_record_that_is_there_twice_is_found() -> None:
    table = loaded()
    table[-1] = table[0]
    assert verify(table).unexpected == 1


def test_the_last_acknowledged_write_of_any_writer_may_stand() -> None:
    written = [Written(process, cells={(4, 2): CellWrites(last=10 + process, acknowledged=2)}) for process in (0, 1)]
    for process in (0, 1):
        table = loaded()
        put(table, 4, 2, Stamp(RUN, process, 10 + process, 0))
        assert verify(table, *written).ok


@pytest.mark.parametrize(
    "stamp",
    [
        pytest.param(Stamp(LOAD_RUN, 0, 5, 0), id="acknowledged write left no trace"),
        pytest.param(Stamp(RUN, 0, 9, 0), id="older write of the same writer"),
        pytest.param(Stamp(RUN, 1, 10, 0), id="a process that did not write it"),
    ],
)
def test_a_stale_value_is_found(stamp: Stamp) -> None:
    table = loaded()
    put(table, 4, 2, stamp)
    assert verify(table, Written(0, cells={(4, 2): CellWrites(last=10, acknowledged=3)})).stale == 1


def test_a_write_that_nobody_made_is_found() -> None:
    table = loaded()
    put(table, 4, 2, Stamp(RUN, 0, 10, 0))
    assert verify(table).stale == 1


@pytest.mark.parametrize("sequence", [10, 12])
def test_a_write_in_doubt_may_have_happened_or_not(sequence: int) -> None:
    table = loaded()
    put(table, 4, 2, Stamp(RUN, 0, sequence, 0))
    assert verify(table, Written(0, cells={(4, 2): CellWrites(last=10, acknowledged=1, in_doubt=[12])})).ok


def test_an_insert_in_doubt_may_be_there_or_not_but_an_acknowledged_one_must() -> None:
    written = Written(0, inserted={RECORDS: 5}, inserts_in_doubt={RECORDS + 1: 6})
    table = loaded()
    assert verify(table, written).missing == 1
    table[RECORDS] = record(RECORDS, Stamp(RUN, 0, 5, 0))
    assert verify(table, written).ok
    table[RECORDS + 1] = record(RECORDS + 1, Stamp(RUN, 0, 6, 0))
    assert verify(table, written).ok
    table[RECORDS] = record(RECORDS, Stamp(RUN, 0, 4, 0))
    assert verify(table, written).stale == FIELDS


def test_a_lost_update_is_found() -> None:
    written = [Written(process, cells={(4, 2): CellWrites(last=3, acknowledged=2)}) for process in (0, 1)]
    table = loaded()
    put(table, 4, 2, Stamp(RUN, 1, 3, 4))
    assert verify(table, *written, counts_changes=True).ok
    put(table, 4, 2, Stamp(RUN, 1, 3, 2))
    assert verify(table, *written, counts_changes=True).lost == 2


def test_writes_are_collected_by_cell_with_the_doubtful_apart() -> None:
    chosen = Settings(workload=WORKLOADS["a"], records=RECORDS, operations=400, processes=1)
    stream = make_stream(chosen, 0, RECORDS)
    statuses = bytes(2 if index % 7 == 0 else 0 for index in range(300))
    written = collect_writes(stream, statuses, 0)
    updates = [index for index in range(300) if stream.ops[index].value == "UPDATE"]
    assert sum(cell.acknowledged for cell in written.cells.values()) == sum(index % 7 != 0 for index in updates)
    assert sum(len(cell.in_doubt) for cell in written.cells.values()) == sum(index % 7 == 0 for index in updates)
    last = max(index for index in updates if index % 7)
    assert written.cells[int(stream.numbers[last]), int(stream.fields[last])].last == last + 1
