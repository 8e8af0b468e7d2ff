"""SIGKILL of the process that runs the database: the acknowledged commits are there, and nothing else."""

from __future__ import annotations

import random
import time

import pytest

from .child import Children
from .cluster import Cluster, fresh
from .conftest import rounds
from .ledger import Ledger

MOST_COMMITS = 40
LONGEST_PAUSE_S = 0.01


def kill_writers(cluster: Cluster, children: Children, count: int, beside: bool) -> None:
    chance = random.Random(count)
    ledger = Ledger(cluster, children, fresh("ledger"))
    reader = None
    other = ledger.writer(99) if beside else None
    for _ in range(count):
        writer = ledger.writer(0)
        writer.wait(chance.randint(0, MOST_COMMITS))
        time.sleep(chance.random() * LONGEST_PAUSE_S)
        writer.kill()
        assert writer.errors() == []
        if other is None:
            reader = reader or children.session(cluster, ledger.name)
            ledger.verify(reader)
    if other is not None:
        other.wait(1)
        other.kill()
        assert other.errors() == []
    ledger.verify()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-another"])
def test_killed_at_random_points(cluster: Cluster, children: Children, beside: bool) -> None:
    """Guards durability and atomicity: exactly what was acknowledged, at most one commit in doubt for each kill."""
    kill_writers(cluster, children, rounds(12 if not beside else 6), beside)


@pytest.mark.slow
@pytest.mark.seconds(900)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-another"])
def test_killed_a_hundred_times(cluster: Cluster, children: Children, beside: bool) -> None:
    """Guards the same, often enough to meet every step of a commit."""
    kill_writers(cluster, children, rounds(100), beside)


@pytest.mark.parametrize("spilled", [False, True], ids=["in-cache", "spilled"])
def test_killed_inside_a_transaction(cluster: Cluster, children: Children, spilled: bool) -> None:
    """Guards atomicity: nothing stays of an open transaction, and the next writer need not wait for the dead one."""
    name = fresh("open")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    db.sql("INSERT INTO t VALUES(1, 'kept')")
    if spilled:
        db.sql("PRAGMA cache_size = 5")
    db.sql("BEGIN IMMEDIATE")
    for i in range(2, 200):
        db.sql("INSERT INTO t VALUES(?, randomblob(2000))", i)
    db.kill()
    after = children.session(cluster, name)
    assert after.sql("SELECT a FROM t") == [[1]]
    after.sql("INSERT INTO t VALUES(2, 'next')")
    assert after.one("PRAGMA integrity_check") == "ok"
