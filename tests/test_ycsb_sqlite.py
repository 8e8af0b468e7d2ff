"""The SQLite binding alone: statements, statuses, waiting for other writers, and the dspm target's own report."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import apsw
import pytest

import dspm
from dspm.bench.ycsb.bindings import Status, sqlite
from dspm.bench.ycsb.bindings.sqlite import SqliteBinding
from dspm.bench.ycsb.target import TARGETS
from dspm.errors import DataError, DspmError, UnavailableError

FIELDS = 3


def opened(path: Path, target: str = "tmpfs") -> SqliteBinding:
    return SqliteBinding(TARGETS[target], str(path), cache_size=-500, page_size=4096, fields=FIELDS)


@pytest.fixture
def binding(tmp_path: Path) -> SqliteBinding:
    made = opened(tmp_path / "db")
    made.create(FIELDS)
    made.insert([("user1", "a", "b", "c"), ("user2", "d", "e", "f")])
    made.insert([("user3", "g", "h", "i")])
    return made


def test_operations_do_what_they_say(binding: SqliteBinding) -> None:
    assert binding.read("user1") is Status.OK
    assert binding.update("user1", 1, "B") is Status.OK
    assert binding.read_modify_write("user2", 2, lambda old: f"{old}!") is Status.OK
    assert binding.scan("user2", 100) is Status.OK
    assert list(binding.rows()) == [("user1", "a", "B", "c"), ("user2", "d", "e", "f!"), ("user3", "g", "h", "i")]


def test_what_is_not_there_is_not_found(binding: SqliteBinding) -> None:
    assert binding.read("user9") is Status.NOT_FOUND
    assert binding.update("user9", 0, "x") is Status.NOT_FOUND
    assert binding.read_modify_write("user9", 0, lambda _: "x") is Status.NOT_FOUND


def test_a_failed_batch_leaves_nothing_and_says_why(binding: SqliteBinding) -> None:
    assert binding.insert([("user4", "", "", ""), ("user1", "", "", "")]) is Status.ERROR
    assert "UNIQUE" in binding.last_error
    assert binding.facts().records == 3


def test_facts_name_mode_and_size(binding: SqliteBinding) -> None:
    facts = binding.facts()
    assert (facts.records, facts.page_size, facts.journal_mode, facts.copies) == (3, 4096, "wal", 1)
    assert facts.size_bytes % 4096 == 0


def test_create_replaces_the_table(binding: SqliteBinding) -> None:
    binding.create(FIELDS)
    assert list(binding.rows()) == []


def test_a_missing_table_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table usertable"):
        opened(tmp_path / "empty").facts()


def test_a_path_that_cannot_be_opened_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(DspmError, match="target wal"):
        opened(tmp_path / "absent" / "db", "wal")


@pytest.mark.parametrize("operation", ["update", "read_modify_write"])
def test_a_busy_writer_is_waited_for_and_counted(
    binding: SqliteBinding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 1)
    waiting = opened(tmp_path / "db")
    other = apsw.Connection(str(tmp_path / "db"))
    other.execute("BEGIN IMMEDIATE")

    def release() -> None:
        while waiting.retries == 0:
            threading.Event().wait(0.001)
        other.execute("COMMIT")

    releaser = threading.Thread(target=release)
    releaser.start()
    if operation == "update":
        status = waiting.update("user1", 0, "new")
    else:
        status = waiting.read_modify_write("user1", 0, lambda _: "new")
    releaser.join()
    assert status is Status.OK
    assert waiting.retries >= 1
    assert next(binding.rows())[1] == "new"


def test_a_writer_that_never_ends_is_an_error(
    binding: SqliteBinding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 1)
    monkeypatch.setattr(sqlite, "RETRY_SECONDS_MAX", 0.0)
    waiting = opened(tmp_path / "db")
    other = apsw.Connection(str(tmp_path / "db"))
    other.execute("BEGIN IMMEDIATE")
    assert waiting.update("user1", 0, "new") is Status.ERROR
    assert "BusyError" in waiting.last_error


@pytest.mark.parametrize(
    ("status", "expected"),
    [('{"durability": "memory", "copies": 2}', ("memory", 2)), (None, ("unknown", 0))],
)
def test_the_dspm_target_reports_its_own_durability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str | None, expected: tuple[str, int]
) -> None:
    class Reporting(apsw.Connection):
        """A connection that answers `PRAGMA dspm_status` as the VFS does."""

        def pragma(self, name: str, *values: object, **named: object) -> object:
            return status if name == "dspm_status" else super().pragma(name, *values, **named)  # type: ignore[arg-type]

    monkeypatch.setitem(dspm.__dict__, "connect", lambda name: Reporting(str(tmp_path / name)))
    binding = SqliteBinding(TARGETS["dspm"], "data", cache_size=-500, page_size=4096, fields=FIELDS)
    binding.create(FIELDS)
    facts = binding.facts()
    assert (facts.durability, facts.copies) == expected


def test_a_build_without_the_library_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(dspm.__dict__, "connect", raising=False)
    monkeypatch.setitem(sys.modules, "dspm.engine.vfs", None)
    with pytest.raises(UnavailableError, match="cannot open data sets"):
        SqliteBinding(TARGETS["dspm"], "data", cache_size=-500, page_size=4096, fields=FIELDS)
