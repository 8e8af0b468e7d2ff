"""How often a program waits for a node, on the counter that counts exactly that."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .child import Children, Session
from .cluster import Cluster, fresh

TIMES = 20
TRIES = 10


@pytest.fixture
def warm(cluster: Cluster, children: Children) -> Session:
    db = children.session(cluster, fresh("trips"))
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    for i in range(10):
        db.sql("INSERT INTO t VALUES(?, 0)", i)
    return db


def fewest(db: Session, do: Callable[[], object]) -> int:
    """The fewest round trips of some tries: on a busy machine a lease may lapse within one, and is asked for again."""
    found: list[int] = []
    for _ in range(TRIES):
        db.sql("UPDATE t SET b = b + 1 WHERE a = 0")
        before = db.status()["round_trips"]
        do()
        found.append(db.status()["round_trips"] - before)
    return min(found)


def test_warm_reads_under_the_lease_take_none(warm: Session) -> None:
    """Guards "reads of a lone writer cost no round trip"."""

    def read() -> None:
        for i in range(TIMES):
            warm.sql("SELECT b FROM t WHERE a = ?", i % 10)
        warm.sql("BEGIN")
        warm.sql("SELECT sum(b) FROM t")
        warm.sql("COMMIT")

    assert fewest(warm, read) == 0


def test_a_commit_takes_one(warm: Session) -> None:
    """Guards "a lone writer's transaction costs exactly one round trip", read and written or written only."""

    def autocommit() -> None:
        for i in range(TIMES):
            warm.sql("UPDATE t SET b = b + 1 WHERE a = ?", i % 10)

    def explicit() -> None:
        for i in range(TIMES):
            warm.sql("BEGIN IMMEDIATE")
            warm.sql("SELECT b FROM t WHERE a = ?", i % 10)
            warm.sql("UPDATE t SET b = b + 1 WHERE a = ?", i % 10)
            warm.sql("COMMIT")

    assert fewest(warm, autocommit) == TIMES
    assert fewest(warm, explicit) == TIMES


@pytest.mark.parametrize("pragma", ["synchronous=FULL", "synchronous=OFF"], ids=["super-journal", "without"])
@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_commit_over_several_databases_takes_three(warm: Session, pragma: str, others: int) -> None:
    """Guards "prepare, decide, resolve": three for any number of databases, and none for reading in between."""
    schemas = [f"aux{i}" for i in range(others)]
    for schema in schemas:
        warm.sql(f"ATTACH ? AS {schema}", fresh("trips-too"))
        warm.sql(f"CREATE TABLE {schema}.u(a INTEGER PRIMARY KEY, b)")
        warm.sql(f"INSERT INTO {schema}.u VALUES(0, 0)")
    for schema in ("main", *schemas):
        warm.sql(f"PRAGMA {schema}.{pragma}")

    def all_of_them() -> None:
        for _ in range(TIMES):
            warm.sql("BEGIN IMMEDIATE")
            warm.sql("UPDATE t SET b = b + 1 WHERE a = 0")
            for schema in schemas:
                warm.sql(f"UPDATE {schema}.u SET b = b + 1")
            warm.sql("COMMIT")
            for schema in schemas:
                warm.sql(f"SELECT * FROM t, {schema}.u")

    assert fewest(warm, all_of_them) == 3 * TIMES


def test_a_transaction_without_a_change(warm: Session) -> None:
    """Guards empty and rolled back transactions: no commit. An empty COMMIT may ask whether it was the writer."""

    def rolled_back() -> None:
        warm.sql("BEGIN IMMEDIATE")
        warm.sql("UPDATE t SET b = -1")
        warm.sql("ROLLBACK")

    def empty() -> None:
        warm.sql("BEGIN IMMEDIATE")
        warm.sql("COMMIT")

    before = warm.status()["lsn"]
    assert fewest(warm, rolled_back) == 0
    assert fewest(warm, empty) <= 1
    assert warm.status()["lsn"] == before + 2 * TRIES
    assert warm.one("SELECT min(b) FROM t") == 0


def test_a_reader_elsewhere(cluster: Cluster, children: Children, warm: Session) -> None:
    """Guards reading beside a writer: at most one round trip begins it, none while nobody writes, and pages that did
    not change are not asked for."""
    reader = children.session(cluster, warm.status()["dataset"])
    reader.sql("SELECT sum(b) FROM t")
    found = []
    deadline = time.monotonic() + 10
    while 0 not in found and time.monotonic() < deadline:
        time.sleep(0.02)  # a lease is given once the node can call the process, soon after it opened the database
        before = reader.status()["round_trips"]
        reader.sql("SELECT sum(b) FROM t")
        found.append(reader.status()["round_trips"] - before)
    assert max(found) <= 1
    assert 0 in found, "no read lease"


def test_a_commit_ends_a_read_lease(cluster: Cluster, children: Children, warm: Session) -> None:
    """Guards read leases: a reader that did not have to ask sees what was committed just now."""
    reader = children.session(cluster, warm.status()["dataset"])
    time.sleep(0.1)
    for i in range(TIMES):
        time.sleep(0.02)
        for _ in range(3):
            reader.sql("SELECT b FROM t WHERE a = 1")
        warm.sql("UPDATE t SET b = ? WHERE a = 1", i)
        assert reader.one("SELECT b FROM t WHERE a = 1") == i


def test_a_page_that_was_zeros_takes_none_more(warm: Session) -> None:
    """Guards changes of pages that were zeros: members that forgot since which commit take them without asking back."""
    warm.sql("CREATE TABLE z(v)")
    warm.sql("INSERT INTO z VALUES(zeroblob(16000))")  # its last overflow page is zeros to the end
    found = []
    for _ in range(TRIES):
        warm.sql("UPDATE z SET v = zeroblob(16000)")
        time.sleep(0.5)  # several times what it takes to tell all members that nobody reads the commits before
        warm.sql("UPDATE t SET b = b + 1 WHERE a = 0")
        before = warm.status()["round_trips"]
        warm.sql("UPDATE z SET v = CAST(zeroblob(15999) || x'01' AS BLOB)")
        found.append(warm.status()["round_trips"] - before)
    assert min(found) == 1, found
