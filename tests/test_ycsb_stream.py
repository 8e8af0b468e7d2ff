"""Operation streams: proportions, shares, and the keys they ask for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspm.bench.ycsb.counters import InsertCounters
from dspm.bench.ycsb.java_random import JavaRandom
from dspm.bench.ycsb.scrambled import ScrambledZipfian
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.stream import make_stream, process_seed
from dspm.bench.ycsb.workload import WORKLOADS, Op, choose

COUNT = 40_000
PUBLISHED = {
    "a": {"READ": 0.5, "UPDATE": 0.5},
    "b": {"READ": 0.95, "UPDATE": 0.05},
    "c": {"READ": 1.0},
    "d": {"READ": 0.95, "INSERT": 0.05},
    "e": {"SCAN": 0.95, "INSERT": 0.05},
    "f": {"READ": 0.5, "READ-MODIFY-WRITE": 0.5},
}


def settings_of(name: str, **changes: int) -> Settings:
    base = Settings(workload=WORKLOADS[name], records=1000, operations=COUNT, processes=1)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_proportions_are_the_published_ones(name: str) -> None:
    assert {op.value: share for op, share in WORKLOADS[name].mix} == PUBLISHED[name]
    counts = Counter(op.value for op in make_stream(settings_of(name), 0, 1000).ops)
    assert set(counts) == set(PUBLISHED[name])
    for op, share in PUBLISHED[name].items():
        assert counts[op] / COUNT == pytest.approx(share, abs=0.01)


def test_chooser_subtracts_weights_as_ycsb_does() -> None:
    mix = ((Op.READ, 0.95), (Op.UPDATE, 0.05))
    assert choose(mix, np.array([0.0, 0.9499, 0.95, 0.9999999])).tolist() == [0, 0, 1, 1]


def test_scan_lengths_are_uniform_from_1_to_100() -> None:
    lengths = make_stream(settings_of("e"), 0, 1000).lengths
    assert (lengths.min(), lengths.max()) == (1, 100)
    assert lengths.mean() == pytest.approx(50.5, rel=0.02)


def test_fields_are_uniform() -> None:
    counts = np.bincount(make_stream(settings_of("a"), 0, 1000).fields, minlength=10)
    assert len(counts) == 10
    assert counts / COUNT == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_zipfian_keys_are_ycsbs_with_its_redraws() -> None:
    """YCSB's key space for 1000 records is 0..1000, and it draws again when record 1000 comes up."""
    drawn = ScrambledZipfian(1000, JavaRandom(1)).draw(2 * COUNT)
    assert make_stream(settings_of("a"), 0, 1000).numbers.tolist() == drawn[drawn < 1000][:COUNT].tolist()


def test_latest_reads_lean_to_the_newest() -> None:
    stream = make_stream(settings_of("d"), 0, 1000)
    distances = stream.numbers[[op is Op.READ for op in stream.ops]]
    assert stream.relative
    assert distances.min() == 0
    assert np.median(distances) < 100


@pytest.mark.parametrize("name", ["d", "e"])
def test_processes_insert_different_records_without_gaps(name: str) -> None:
    chosen = settings_of(name, processes=3, operations=9000)
    streams = [make_stream(chosen, process, 1000) for process in range(3)]
    per_process = [stream.numbers[[op is Op.INSERT for op in stream.ops]].tolist() for stream in streams]
    assert all(numbers == sorted(numbers) for numbers in per_process)
    together = sorted(number for numbers in per_process for number in numbers)
    assert together == list(range(1000, 1000 + len(together)))
    shortest = min(map(len, per_process))
    assert [numbers[:shortest] for numbers in per_process] == [
        list(range(1000 + process, 1000 + process + 3 * shortest, 3)) for process in range(3)
    ]
    for stream in streams:
        assert stream.inserts == [[*numbers, 1000 + len(together)] for numbers in per_process]


def test_newest_is_where_every_insert_is_answered(tmp_path: Path) -> None:
    """Process 1 has but one insert, so from then on process 0 alone moves the newest record."""
    InsertCounters.create(tmp_path / "counters", 2)
    with InsertCounters(tmp_path / "counters", [[10, 12, 13, 14], [11, 14]]) as counters:
        seen = [counters.newest()]
        for process in (1, 0, 0, 0):
            counters.acknowledge(process)
            seen.append(counters.newest())
    assert seen == [9, 9, 11, 12, 13]


def test_workload_e_scans_only_from_records_that_may_exist() -> None:
    stream = make_stream(settings_of("e"), 0, 1000)
    newest = 999
    for op, number in zip(stream.ops, stream.numbers.tolist(), strict=True):
        if op is Op.INSERT:
            newest += 1
            assert number == newest
        else:
            assert 0 <= number <= newest


@settings(max_examples=20, deadline=None)
@given(st.sampled_from("abcdef"), st.integers(0, 2**40), st.integers(1, 4))
def test_streams_depend_on_seed_and_process_alone(name: str, seed: int, processes: int) -> None:
    chosen = settings_of(name, seed=seed, processes=processes, operations=200)
    streams = [make_stream(chosen, process, 1000) for process in range(processes)]
    again = [make_stream(chosen, process, 1000) for process in range(processes)]
    assert sum(len(stream) for stream in streams) == 200
    for first, second in zip(streams, again, strict=True):
        assert first.ops == second.ops
        assert first.numbers.tolist() == second.numbers.tolist()
    assert len({process_seed(seed, process) for process in range(processes)}) == processes


@given(st.integers(1, 1000), st.integers(1, 50))
def test_shares_add_up(total: int, processes: int) -> None:
    chosen = Settings(records=1000, operations=1000, processes=processes)
    shares = [chosen.share(total, process) for process in range(processes)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert chosen.share_start(total, processes - 1) == total - shares[-1]
