"""The WiredTiger binding with a real engine: the table by itself, and the harness over a real cluster and tmpfs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401  (fixtures)
from wiredtiger import engines

from dspm.bench.wiredtiger.database import ROLLBACK, Connection, Place, WiredTigerError
from dspm.bench.wiredtiger.library import Library, find, load
from dspm.bench.ycsb.bindings import open_binding
from dspm.bench.ycsb.bindings.base import Status
from dspm.bench.ycsb.bindings.wiredtiger import pack, unpack
from dspm.bench.ycsb.compare import compare
from dspm.bench.ycsb.runner import load as load_phase
from dspm.bench.ycsb.runner import run
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import location, target_named
from dspm.bench.ycsb.workload import WORKLOADS
from dspm.errors import DataError, UsageError

CACHE_BYTES = 16 << 20


@pytest.fixture(params=list(engines.ENTRIES))
def library(request: pytest.FixtureRequest) -> Library:
    try:
        return load(find(str(engines.find(request.param).library / "libwiredtiger.so")))
    except engines.Missing as why:
        pytest.skip(str(why))


@pytest.fixture
def connection(library: Library, tmp_path: Path) -> Iterator[Connection]:
    with Connection(library, Place(directory=str(tmp_path)), CACHE_BYTES) as opened:
        yield opened


def settings(library: Library, directory: Path, **more: object) -> Settings:
    chosen = Settings(
        binding="wiredtiger", processes=1, threads=3, records=300, operations=600, batch=100, cache_size=-16384,
        directory=directory, library=str(library.path),
    )  # fmt: skip
    return replace(chosen, **more)  # type: ignore[arg-type]


def test_rows_scans_and_sizes(connection: Connection) -> None:
    table = connection.table("table:t", create=True)
    for number in range(100):
        with table.transaction():
            table.put(f"{number:03}", b"%d\0" % number * 300)
    assert table.get("007") == b"7\0" * 300
    assert table.get("100") is None
    assert table.scan("0975", 5) == [b"98\0" * 300, b"99\0" * 300]
    assert table.scan("010", 2) == [b"10\0" * 300, b"11\0" * 300]
    assert [key for key, _ in table.rows()] == [f"{number:03}" for number in range(100)]
    assert table.file_bytes() > 50 * 600
    table.close()


def test_a_transaction_that_raises_leaves_nothing(connection: Connection) -> None:
    table = connection.table("table:t", create=True)
    with pytest.raises(RuntimeError), table.transaction():
        table.put("a", b"1")
        raise RuntimeError
    assert table.get("a") is None
    table.close()


def test_two_writers_of_a_row_conflict(connection: Connection) -> None:
    ours, theirs = connection.table("table:t", create=True), connection.table("table:t")
    with pytest.raises(WiredTigerError) as conflict, ours.transaction():
        assert ours.get("a") is None
        with theirs.transaction():
            theirs.put("a", b"theirs")
        ours.put("a", b"ours")
    assert conflict.value.number == ROLLBACK
    assert ours.get("a") == b"theirs"


def test_values_hold_their_fields() -> None:
    fields = ["a", "", "über" * 30]
    assert unpack(pack(fields)) == fields
    assert unpack(pack(fields)[:-1]) != fields


def test_read_modify_writes_of_threads_are_all_there(library: Library, tmp_path: Path) -> None:
    chosen = settings(library, tmp_path)
    target = target_named("disk", "wiredtiger")
    first = open_binding(chosen, target)
    first.create(2)
    assert first.insert([("k", "0", "x")]) is Status.OK

    def count() -> None:
        binding = open_binding(chosen, target)
        for _ in range(50):
            assert binding.read_modify_write("k", 0, lambda old: str(int(str(old)) + 1)) is Status.OK
        binding.close()

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(first.rows()) == [("k", "150", "x")]
    assert first.update("nobody", 0, "y") is Status.NOT_FOUND
    first.close()


@pytest.mark.parametrize("workload", ["e", "f"])
def test_workloads_beside_each_other(library: Library, cluster: Path, tmp_path: Path, workload: str) -> None:  # noqa: F811
    chosen = settings(library, tmp_path, workload=WORKLOADS[workload], db=f"c-{library.version}-{workload}")
    found = compare(chosen, ("dspm", "tmpfs"), rounds=1)
    assert found.verified
    ours, theirs = found.entries
    assert (ours.middle.facts.durability, ours.middle.facts.copies) == ("memory", 2)
    assert theirs.middle.facts.copies == 1
    assert ours.middle.operations == chosen.operations and len(ours.middle.throughput_each) == 3
    assert ours.middle.facts.size_bytes > 300 * 1000


def test_what_is_lost_is_found(library: Library, tmp_path: Path) -> None:
    chosen = settings(library, tmp_path, workload=WORKLOADS["c"])
    load_phase(chosen, "disk")
    target = target_named("disk", "wiredtiger")
    binding = open_binding(chosen, target)
    damaged = list(next(iter(binding.rows())))
    key = str(damaged[0])
    binding.update(key, 3, "not what was written")
    binding.close()
    result = run(chosen, "disk")
    assert result.verification is not None
    assert result.verification.corrupt == 1
    assert Path(location(target, chosen)).is_dir()


def test_no_table(library: Library, tmp_path: Path) -> None:
    binding = open_binding(settings(library, tmp_path), target_named("disk", "wiredtiger"))
    with pytest.raises(DataError, match="no table"):
        binding.facts()
    binding.close()


def test_clients_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="one process at a time"):
        Settings(binding="wiredtiger", processes=2)
    with pytest.raises(UsageError, match="are processes"):
        Settings(binding="sqlite", threads=2)
    with pytest.raises(UsageError, match="no target 'wal' for wiredtiger"):
        target_named("wal", "wiredtiger")


def test_a_library_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no WiredTiger library"):
        find(str(tmp_path / "nothing.so"))
    other = tmp_path / "other.so"
    other.write_bytes(b"\x7fELF nothing of the kind")
    with pytest.raises(UsageError, match="no WiredTiger in it"):
        load(other)
