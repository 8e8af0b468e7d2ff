"""A real WiredTiger keeps its database in a cluster: what it acknowledged is there, whatever ends the process.

The process's home is empty each time, so what is found came from the cluster. Fault model: kill -9 of the program at
any moment between and within commits; the keys that it acknowledged are recorded outside of it.
"""

from __future__ import annotations

import pytest

from .database import Database
from .program import FSYNC, SCHEMA, SIZE, TABLE

METHODS = ["fsync", "dsync", "none"]


def test_tables_rows_checkpoints(database: Database) -> None:
    first = database.created()
    keys = first.insert(1, 50, threads=4)
    first.must("checkpoint")
    keys |= first.insert(1000, 50)
    first.must("close")

    second = database.open()
    assert second.rows() == keys
    second.must("verify", TABLE)
    second.must("create", "table:other", SCHEMA)
    second.must("drop", "table:other")
    second.must("close")
    second.must(*database.words())
    assert second.rows() == keys
    second.must("close")
    assert not list((database.directory / "home-1").iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_program_loses_no_acknowledged_commit(database: Database, method: str) -> None:
    """With dsync too, where WiredTiger asks for no sync at all; and with none, which looks the same from outside."""
    more = f"transaction_sync=(enabled,method={method})"
    acknowledged: set[int] = set()
    program = database.created(more=more)
    program.must("checkpoint")
    for life in range(3):
        program.send("insert", TABLE, life * 100_000, 10_000, SIZE, 4, "-")
        acknowledged |= {int(program.line().split()[1]) for _ in range(40 + 37 * life)}
        acknowledged |= program.kill().keys
        program = database.open(more=more)
        assert acknowledged <= program.rows()
    program.must("verify", TABLE)
    assert len(acknowledged) >= 3 * 40


def test_killed_beside_checkpoints_and_new_log_files(database: Database) -> None:
    """Rows enough for several log files of 1 MB, and a checkpoint before each kill."""
    acknowledged: set[int] = set()
    program = database.created()
    for life in range(2):
        acknowledged |= program.insert(life * 100_000, 400, threads=4)
        program.send("checkpoint")
        program.kill()
        program = database.open()
        assert acknowledged <= program.rows()
    assert len(acknowledged) == 3200


def test_killed_while_log_files_change(database: Database) -> None:
    """A log file of 100 kB holds some hundred of these commits: kills fall into changes from one to the next, when the
    new file has its header and nothing else."""
    small = f"{FSYNC},log=(enabled,file_max=100KB)"
    acknowledged: set[int] = set()
    program = database.created(more=small)
    for life in range(8):
        program.send("insert", TABLE, life * 100_000, 20_000, SIZE, 4, "-")
        acknowledged |= {int(program.line().split()[1]) for _ in range(101 + 53 * life)}
        acknowledged |= program.kill().keys
        program = database.open(more=small)
        assert acknowledged <= program.rows()


def test_commits_without_sync_are_durable_once_flushed(database: Database) -> None:
    program = database.created(more="transaction_sync=(enabled=false)")
    keys = program.insert(1, 200, commit="-")
    program.must("flush", "sync=on")
    program.send("insert", TABLE, 1000, 10_000, SIZE, 1, "-")
    program.line()
    program.kill()
    assert keys <= database.open().rows()


def test_one_owner_and_the_next_takes_over(database: Database) -> None:
    owner = database.created()
    keys = owner.insert(1, 10)
    second = database.program()
    options = f"{database.options},wait=300ms"
    assert second.do(*database.words(options=options)).end.startswith("failed 16 ")
    assert "owned by another process" in second.said()
    keys |= owner.insert(100, 10)
    owner.kill()
    second.must(*database.words())
    assert second.rows() == keys


def test_a_forked_child_changes_nothing(database: Database) -> None:
    program = database.created()
    keys = program.insert(1, 10)
    assert program.must("fork").lines == ["the child failed"]
    keys |= program.insert(100, 10)
    program.must("close")
    again = database.open()
    assert again.rows() == keys
    assert not again.do("scan", "table:of_a_child", SIZE).ok
