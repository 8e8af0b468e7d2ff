"""The whole harness with real worker processes, on tmpfs and on nothing."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from rich.console import Console

from dspm.bench.ycsb.compare import compare
from dspm.bench.ycsb.disk import file_system_of
from dspm.bench.ycsb.document import comparison_document, phase_document
from dspm.bench.ycsb.fnv import key_name
from dspm.bench.ycsb.plot import plot_comparison
from dspm.bench.ycsb.result import Result
from dspm.bench.ycsb.runner import check, load, run
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.summary import context_lines, summary_lines
from dspm.bench.ycsb.table import print_comparison
from dspm.bench.ycsb.target import TARGETS, location
from dspm.bench.ycsb.workload import workload_named
from dspm.errors import DataError, DspmError, UsageError

SHARED_MEMORY = Path("/dev/shm")
RECORDS, OPERATIONS = 300, 600

pytestmark = pytest.mark.skipif(
    not SHARED_MEMORY.is_dir() or file_system_of(SHARED_MEMORY) != "tmpfs", reason="/dev/shm is no tmpfs here"
)


def settings_in(directory: Path, memory: str) -> Settings:
    return Settings(
        records=RECORDS,
        operations=OPERATIONS,
        processes=2,
        batch=100,
        directory=directory,
        memory_directory=Path(memory),
    )


@pytest.fixture
def chosen(tmp_path: Path) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as memory:
        yield settings_in(tmp_path, memory)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table loaded once for all tests."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as memory:
        settings = settings_in(tmp_path_factory.mktemp("original"), memory)
        load(settings, "tmpfs", verify=False)
        yield Path(location(TARGETS["tmpfs"], settings))


@pytest.fixture
def loaded(chosen: Settings, original: Path) -> Settings:
    """Settings whose tmpfs target is a copy of the table loaded once."""
    shutil.copy(original, location(TARGETS["tmpfs"], chosen))
    return chosen


def database(chosen: Settings) -> apsw.Connection:
    return apsw.Connection(location(TARGETS["tmpfs"], chosen))


def of(chosen: Settings, workload: str) -> Settings:
    return replace(chosen, workload=workload_named(workload))


def returns(result: Result, op: str) -> int:
    return result.statuses[op].get("OK", 0)


def test_load_makes_ycsbs_table_and_keys(chosen: Settings) -> None:
    result = load(chosen, "tmpfs")
    assert (result.operations, result.verified, result.errors) == (RECORDS, True, 0)
    check_document_of_load(result)
    connection = database(chosen)
    keys = {key for (key,) in connection.execute("SELECT YCSB_KEY FROM usertable")}
    assert keys == {key_name(number) for number in range(RECORDS)}
    assert connection.execute("SELECT sum(length(FIELD9)) FROM usertable").get == 100 * RECORDS
    assert connection.pragma("journal_mode") == "wal"


def test_inserts_of_all_processes_are_found_and_counted_on(loaded: Settings) -> None:
    """Workload D twice on one load: the second run inserts after the records of the first."""
    first = run(of(loaded, "d"), "tmpfs")
    second = run(of(loaded, "d"), "tmpfs")
    check([first, second])
    added = returns(first, "INSERT") + returns(second, "INSERT")
    assert added > 0
    assert second.verification is not None
    assert second.verification.found == RECORDS + added
    assert first.operations == OPERATIONS
    assert len(first.throughput_each) == 2


def test_read_modify_writes_of_two_processes_lose_nothing(chosen: Settings) -> None:
    few = replace(of(chosen, "f"), records=4, operations=400)
    load(few, "tmpfs", verify=False)
    result = run(few, "tmpfs")
    check([result])
    assert result.verified
    assert returns(result, "READ-MODIFY-WRITE") > 100


def test_damage_after_a_run_fails_the_next_verification(loaded: Settings) -> None:
    with database(loaded) as connection:
        connection.execute("UPDATE usertable SET FIELD3 = 'rubbish' WHERE YCSB_KEY = ?", (key_name(17),))
        connection.execute("UPDATE usertable SET YCSB_KEY = 'user5' WHERE YCSB_KEY = ?", (key_name(18),))
    result = run(of(loaded, "c"), "tmpfs")
    found = result.verification
    assert found is not None
    assert (found.missing, found.unexpected, found.corrupt) == (1, 1, 11)
    with pytest.raises(DataError, match="tmpfs failed verification: 1 missing"):
        check([result])


def test_a_run_without_a_table_is_refused(chosen: Settings) -> None:
    with pytest.raises(DataError) as absent:
        run(chosen, "tmpfs")
    assert "dspm ycsb load" in absent.value.hint


def test_a_run_on_too_few_records_is_refused(loaded: Settings) -> None:
    with pytest.raises(DataError, match="holds 300 records"):
        run(replace(loaded, records=301), "tmpfs")


def test_a_run_on_a_table_with_gaps_is_refused(loaded: Settings) -> None:
    with database(loaded) as connection:
        connection.execute("DELETE FROM usertable WHERE YCSB_KEY = ?", (key_name(250),))
    with pytest.raises(DataError, match="not record 250"):
        run(replace(loaded, records=200), "tmpfs")


def test_failed_operations_are_reported(loaded: Settings) -> None:
    with database(loaded) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON usertable BEGIN SELECT raise(ABORT, 'not today'); END"
        )
    result = run(of(loaded, "a"), "tmpfs")
    assert result.statuses["UPDATE"] == {"ERROR": result.errors}
    assert "[UPDATE-FAILED], Operations," in "\n".join(summary_lines(result))
    with pytest.raises(DspmError, match="operations failed") as failed:
        check([result])
    assert "not today" in failed.value.hint


def check_summary(result: Result) -> None:
    """The summary has YCSB's shape."""
    lines = list(summary_lines(result))
    assert re.fullmatch(r"\[OVERALL\], RunTime\(ms\), \d+", lines[0])
    assert re.fullmatch(r"\[OVERALL\], Throughput\(ops/sec\), [\d.e+]+", lines[1])
    reads = [line for line in lines if line.startswith("[READ], ")]
    names = [line.split(", ")[1] for line in reads]
    assert names == [
        "Operations",
        "AverageLatency(us)",
        "MinLatency(us)",
        "MaxLatency(us)",
        "50thPercentileLatency(us)",
        "95thPercentileLatency(us)",
        "99thPercentileLatency(us)",
        "Return=OK",
    ]
    assert reads[0].split(", ")[2] == reads[-1].split(", ")[2]
    assert all(len(line.split(", ")) == 3 and float(line.split(", ")[2]) >= 0 for line in lines)


def test_noop_reaches_its_own_ceiling_and_keeps_nothing(chosen: Settings) -> None:
    result = run(of(chosen, "b"), "noop")
    assert (result.operations, result.errors, result.verification) == (OPERATIONS, 0, None)
    assert result.noop_throughput > 0
    assert 0 < result.client_share <= 1
    check([result])
    check_summary(result)


def test_a_rate_gives_intended_latencies_and_a_common_schedule(chosen: Settings) -> None:
    result = run(replace(of(chosen, "c"), operations=100, rate_per_s=2000), "noop")
    assert result.latencies["Intended-READ"].count == result.latencies["READ"].count == 100
    assert "[Intended-READ], Operations, 100" in list(summary_lines(result))


def test_seconds_end_a_run_early(chosen: Settings) -> None:
    result = run(replace(of(chosen, "c"), processes=1, operations=1000, rate_per_s=1000, seconds_max=0.05), "noop")
    assert 0 < result.operations < 1000


def test_comparison_takes_turns_and_reports_ratios(chosen: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    found = compare(replace(of(chosen, "a"), processes=1), ["tmpfs", "noop"], rounds=2, progress=said.append)
    document = json.loads(json.dumps(comparison_document(found)))
    assert [entry["target"] for entry in document["compare"]] == ["tmpfs", "noop"]
    tmpfs, noop = document["compare"]
    assert tmpfs["ratio"] == 1
    assert noop["ratio"] == pytest.approx(tmpfs["throughput"] / noop["throughput"])
    assert noop["ratio_min"] <= noop["ratio_max"]
    assert len(tmpfs["throughputs"]) == document["rounds"] == 2
    assert (tmpfs["copies"], tmpfs["durability"]) == (1, TARGETS["tmpfs"].durability)
    assert (document["verified"], document["errors"]) == (True, 0)
    assert document["throughput"] == tmpfs["throughput"]
    order = [line.rpartition(": ")[2] for line in said if line.startswith("round")]
    assert order == ["tmpfs, WAL", "no-op", "no-op", "tmpfs, WAL"]
    assert not list(chosen.memory_directory.iterdir())
    check_pictures(found, tmp_path)


def check_pictures(found: object, tmp_path: Path) -> None:
    from dspm.bench.ycsb.result import Comparison

    assert isinstance(found, Comparison)
    console = Console(width=160, record=True, file=(tmp_path / "table").open("w"))
    print_comparison(found, console)
    text = console.export_text()
    assert "tmpfs, WAL" in text
    assert "durability" in text
    assert "fdatasync" in text
    plot_comparison(found, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(UsageError):
        plot_comparison(found, tmp_path / "plot.pdf")


def check_document_of_load(result: Result) -> None:
    """The document has what scripts read."""
    document = json.loads(json.dumps(phase_document(result)))
    assert document["throughput"] > 0
    assert document["latencies"]["INSERT"]["p99_us"] >= document["latencies"]["INSERT"]["p50_us"] > 0
    assert (document["errors"], document["verified"], document["compare"]) == (0, True, [])
    assert document["verification"]["missing"] == 0
    assert document["fdatasync_us"] > 0
    assert any(line.startswith("[TARGET], Durability, ") for line in context_lines(result))
