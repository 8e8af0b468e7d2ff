"""SIGSTOP: a process that stands still for any time and goes on neither loses nor invents nor shows anything old."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from .child import Children, Session, SqlError
from .cluster import Cluster, fresh
from .conftest import Clusters, rounds
from .ledger import Ledger

IOERR = 10
BUSY_SNAPSHOT = 517
PAST_THE_LEASE_S = 1.0
PAST_THE_FLOOR_S = 5.0


@pytest.fixture(scope="module")
def pair(clusters: Clusters) -> Cluster:
    """Two nodes that hold two copies: there is no spare."""
    return clusters(2)


def opened(cluster: Cluster, children: Children, **env: str) -> tuple[str, Session]:
    name = fresh("stopped")
    db = children.session(cluster, name, **env)
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, who TEXT)")
    db.sql("INSERT INTO t VALUES(1, 'first')")
    return name, db


@pytest.mark.parametrize("explicit", [False, True], ids=["autocommit", "commit"])
def test_a_backup_stops_during_commit(pair: Cluster, children: Children, explicit: bool) -> None:
    """Guards invariant 1: COMMIT does not return before every member holds it, and then the row is there once."""
    name, db = opened(pair, children, DSPM_COMMIT_TIMEOUT="60s")
    backup = pair.pid(pair.members(name)[1][0])
    os.kill(backup, signal.SIGSTOP)
    if explicit:
        db.sql("BEGIN IMMEDIATE")
        db.sql("INSERT INTO t VALUES(2, 'second')")
        db.begin("COMMIT")
    else:
        db.begin("INSERT INTO t VALUES(2, 'second')")
    assert db.is_waiting(1.5), "COMMIT returned although a member stood still"
    os.kill(backup, signal.SIGCONT)
    db.answer()
    assert db.sql("SELECT a FROM t") == [[1], [2]]
    assert children.session(pair, name).sql("SELECT a FROM t") == [[1], [2]]
    db.sql("INSERT INTO t VALUES(3, 'third')")


def test_a_primary_stops_during_commit(pair: Cluster, children: Children) -> None:
    """Guards the same for the member that grants: nothing returns, nothing is doubled."""
    name, db = opened(pair, children, DSPM_COMMIT_TIMEOUT="60s")
    primary = pair.pid(pair.members(name)[0])
    os.kill(primary, signal.SIGSTOP)
    db.begin("INSERT INTO t VALUES(2, 'second')")
    assert db.is_waiting(1.5), "COMMIT returned although the primary stood still"
    os.kill(primary, signal.SIGCONT)
    db.answer()
    assert children.session(pair, name).sql("SELECT a FROM t") == [[1], [2]]


def stop(holder: Session) -> None:
    holder.signal(signal.SIGSTOP)
    time.sleep(PAST_THE_LEASE_S)


@pytest.mark.parametrize("mode", ["normal", "exclusive"])
def test_the_lease_holder_stops_and_reads_fresh(cluster: Cluster, children: Children, mode: str) -> None:
    """Guards invariant 5: who was stopped past its lease shows nothing stale afterwards, and can write again."""
    name, holder = opened(cluster, children)
    assert holder.one(f"PRAGMA locking_mode={mode}") == mode
    holder.sql("INSERT INTO t VALUES(2, 'holder')")
    assert holder.sql("SELECT a FROM t") == [[1], [2]]
    stop(holder)
    other = children.session(cluster, name)
    other.sql("INSERT INTO t VALUES(3, 'other')")
    holder.signal(signal.SIGCONT)
    assert holder.sql("SELECT a FROM t") == [[1], [2], [3]], "a stale read after the lease was lost"
    holder.sql("INSERT INTO t VALUES(4, 'holder again')")
    other.close()
    assert children.session(cluster, name).sql("SELECT a FROM t") == [[1], [2], [3], [4]]


@pytest.mark.parametrize("mode", ["normal", "exclusive"])
def test_the_lease_holder_stops_inside_a_transaction(cluster: Cluster, children: Children, mode: str) -> None:
    """Guards invariant 5: its open transaction is fenced. COMMIT fails, nothing of it stays, the next read is fresh."""
    name, holder = opened(cluster, children)
    holder.sql(f"PRAGMA locking_mode={mode}")
    holder.sql("BEGIN IMMEDIATE")
    holder.sql("INSERT INTO t VALUES(2, 'holder')")
    stop(holder)
    other = children.session(cluster, name)
    other.sql("INSERT INTO t VALUES(3, 'other')")
    holder.signal(signal.SIGCONT)
    with pytest.raises(SqlError) as failed:
        holder.sql("COMMIT")
    assert failed.value.code == BUSY_SNAPSHOT or failed.value.primary == IOERR, failed.value
    assert holder.sql("SELECT a, who FROM t") == [[1, "first"], [3, "other"]]
    holder.sql("INSERT INTO t VALUES(2, 'again')")
    assert other.sql("SELECT a, who FROM t") == [[1, "first"], [2, "again"], [3, "other"]]


def test_a_reader_stops_inside_a_transaction(cluster: Cluster, children: Children) -> None:
    """Guards snapshots: a read transaction that was stopped shows its own state to its end, or an error."""
    name, writer = opened(cluster, children)
    reader = children.session(cluster, name)
    reader.sql("BEGIN")
    assert reader.sql("SELECT a FROM t") == [[1]]
    stop(reader)
    for a in range(2, 50):
        writer.sql("INSERT INTO t VALUES(?, 'later')", a)
    reader.signal(signal.SIGCONT)
    assert reader.sql("SELECT a FROM t") == [[1]]
    reader.sql("COMMIT")
    assert reader.one("SELECT count(*) FROM t") == 49


def stop_writers(cluster: Cluster, children: Children, count: int) -> None:
    chance = random.Random(count)
    ledger = Ledger(cluster, children, fresh("ledger"))
    writers = [ledger.writer(i) for i in range(2)]
    for turn in range(count):
        victim, other = writers[turn % 2], writers[1 - turn % 2]
        victim.wait(chance.randint(1, 10))
        time.sleep(chance.random() * 0.005)
        os.kill(victim.process.pid, signal.SIGSTOP)
        other.wait(10)
        os.kill(victim.process.pid, signal.SIGCONT)
    for w in writers:
        w.wait(5)
        w.kill()
    ledger.verify()
    for error in ledger.errors:
        code = int(error.split()[2])
        assert code == BUSY_SNAPSHOT or code & 0xFF == IOERR, error


def test_writers_stop_at_random_points(cluster: Cluster, children: Children) -> None:
    """Guards invariants 2 and 5 at every step of a commit: fenced, refused or completed, never half and never twice."""
    stop_writers(cluster, children, rounds(8))


@pytest.mark.slow
@pytest.mark.seconds(900)
def test_writers_stop_a_hundred_times(cluster: Cluster, children: Children) -> None:
    """Guards the same, often enough to meet every step."""
    stop_writers(cluster, children, rounds(100))


def test_a_reader_stops_under_a_read_lease(pair: Cluster, children: Children) -> None:
    """Guards that a commit waits for a read lease until it lapsed, not longer, and that nothing old is read then."""
    name, db = opened(pair, children)
    reader = children.session(pair, name)
    for _ in range(3):
        reader.sql("SELECT who FROM t")
    os.kill(reader.process.pid, signal.SIGSTOP)
    try:
        db.sql("UPDATE t SET who = 'second'")
    finally:
        os.kill(reader.process.pid, signal.SIGCONT)
    assert reader.one("SELECT who FROM t") == "second"


@pytest.mark.parametrize("history", ["0s", "1m"])
def test_a_reader_stops_for_longer_than_its_floor_counts(pair: Cluster, children: Children, history: str) -> None:
    """Guards `history`: old versions are there for a reader that nobody heard of; without it, it is told."""
    name, db = opened(pair, children, DSPM_HISTORY=history)
    db.sql("CREATE TABLE big(a INTEGER PRIMARY KEY, b)")
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    db.sql(f"{rows} INSERT INTO big SELECT i, zeroblob(2000) FROM n")
    reader = children.session(pair, name)
    reader.sql("BEGIN")
    assert reader.one("SELECT count(*) FROM t") == 1
    os.kill(reader.process.pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + PAST_THE_FLOOR_S
        while time.monotonic() < end:
            db.sql("UPDATE big SET b = randomblob(2000)")
            time.sleep(0.2)
    finally:
        os.kill(reader.process.pid, signal.SIGCONT)
    if history == "1m":
        assert reader.one("SELECT sum(length(b) * (b = zeroblob(2000))) FROM big") == 600_000
        return
    with pytest.raises(SqlError) as failed:
        reader.sql("SELECT sum(length(b)) FROM big")
    assert failed.value.code == BUSY_SNAPSHOT
