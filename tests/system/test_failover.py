"""Members die, stand still and come back: another serves, copies are made whole again, nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from .child import Children, Session, SqlError
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters, rounds
from .ledger import Ledger

FULL = 13
IOERR = 10
ROWS = 1500


@pytest.fixture(scope="module")
def three(clusters: Clusters) -> Cluster:
    """Three nodes that hold two copies: one is a spare."""
    return clusters(3)


@pytest.fixture(scope="module")
def pair(clusters: Clusters) -> Cluster:
    """Two nodes: there is no spare."""
    return clusters(2)


def generation(cluster: Cluster, name: str) -> int:
    return int(cluster.dataset(name)["generation"])


def filled(cluster: Cluster, children: Children, rows: int = ROWS) -> tuple[str, Session]:
    """A database of some hundred pages, and the connection that made it."""
    name = fresh("failover")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    db.sql(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        " INSERT INTO t SELECT i, randomblob(2000) FROM n"
    )
    return name, db


def sums(db: Session) -> list[list[object]]:
    return db.sql("SELECT count(*), sum(a), sum(length(b)), sum(unicode(hex(b))) FROM t")


def serves_alone(cluster: Cluster, children: Children, name: str, primary: str, expected: list[list[object]]) -> None:
    """With the primary gone, the other member has everything."""
    cluster.kill(cluster.pid(primary))
    other = children.session(cluster, name)
    assert other.one("PRAGMA integrity_check") == "ok"
    assert sums(other) == expected
    cluster.up()
    cluster.wait_whole(name)


def test_the_writer_and_the_primary_are_killed_together(three: Cluster, children: Children) -> None:
    """Guards invariant 1: two memories held every acknowledged row, and the one that is left serves it."""
    ledger = Ledger(three, children, fresh("both"))
    for _ in range(rounds(3)):
        writer = ledger.writer()
        writer.wait(30)
        primary = three.members(ledger.name)[0]
        os.kill(three.pid(primary), signal.SIGKILL)
        writer.kill()
        ledger.verify()
        after = ledger.writer()
        after.wait(10)
        after.kill()
        three.up()
        three.wait_whole(ledger.name)
    ledger.verify()


def test_an_open_writer_goes_on_when_the_primary_dies(three: Cluster, children: Children) -> None:
    """Guards "clients go through all of it by themselves": no statement fails for longer than the failover."""
    ledger = Ledger(three, children, fresh("goes-on"))
    writer = ledger.writer()
    for _ in range(rounds(3)):
        writer.wait(20)
        three.kill(three.pid(three.members(ledger.name)[0]))
        writer.wait(20)
        three.up()
        three.wait_whole(ledger.name)
    writer.kill()
    ledger.verify()


def test_a_spare_takes_the_place_of_a_dead_backup_and_then_serves(three: Cluster, children: Children) -> None:
    """Guards joining: what the spare was given while it joined is all there when it is the only one left."""
    name, db = filled(three, children)
    before = sums(db)
    primary, (backup,) = three.members(name)
    three.kill(three.pid(backup))
    three.wait_whole(name)
    now, (joined,) = three.members(name)
    assert now == primary and joined not in (primary, backup)
    db.sql("INSERT INTO t VALUES(100000, zeroblob(10))")
    three.kill(three.pid(primary))
    other = children.session(three, name)
    assert other.one("PRAGMA integrity_check") == "ok"
    other.sql("DELETE FROM t WHERE a = 100000")
    assert sums(other) == before
    assert three.members(name)[0] == joined
    three.up()
    three.wait_whole(name)


def test_a_dropped_member_comes_back_for_what_it_missed(pair: Cluster, children: Children) -> None:
    """Guards rejoining with its memory kept: it is given the records that it missed, and serves them alone then."""
    name, db = filled(pair, children)
    primary, (backup,) = pair.members(name)
    pair.kill(pair.pid(backup))
    db.sql("INSERT INTO t VALUES(100000, zeroblob(10))")
    assert pair.status()["degraded"]
    expected = sums(db)
    pair.up()
    pair.wait_whole(name)
    eventually("no set is degraded", lambda: not pair.status()["degraded"])
    serves_alone(pair, children, name, primary, expected)


def test_a_member_that_lost_its_memory_joins_again(pair: Cluster, children: Children) -> None:
    """Guards joining with nothing: every page comes from the one that is left."""
    name, db = filled(pair, children)
    primary, (backup,) = pair.members(name)
    pair.kill(pair.pid(backup))
    pair.arena(backup).unlink()
    db.sql("INSERT INTO t VALUES(100000, zeroblob(10))")
    expected = sums(db)
    pair.up()
    pair.wait_whole(name)
    serves_alone(pair, children, name, primary, expected)


def test_a_primary_that_stood_still_changes_and_shows_nothing(three: Cluster, children: Children) -> None:
    """Guards fencing: SIGSTOP is detected as death is; gone on, the old primary is nobody."""
    ledger = Ledger(three, children, fresh("frozen"))
    writer = ledger.writer()
    writer.wait(20)
    first = generation(three, ledger.name)
    pid = three.pid(three.members(ledger.name)[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        writer.wait(50)
        assert generation(three, ledger.name) > first
    finally:
        os.kill(pid, signal.SIGCONT)
    writer.wait(50)
    three.wait_whole(ledger.name)
    writer.kill()
    ledger.verify()


def test_a_reader_keeps_its_snapshot_over_a_failover(three: Cluster, children: Children) -> None:
    """Guards floors: a transaction that is open reads the same state before and after."""
    name, db = filled(three, children)
    reader = children.session(three, name, DSPM_CACHE_SIZE="1MiB")
    reader.sql("BEGIN")
    before = reader.one("SELECT count(*) FROM t")
    db.sql("DELETE FROM t WHERE a % 2 = 0")
    three.kill(three.pid(three.members(name)[0]))
    assert reader.one("SELECT sum(length(b) > 0) FROM t") == before == ROWS
    reader.sql("COMMIT")
    assert reader.one("SELECT count(*) FROM t") == ROWS // 2
    three.up()
    three.wait_whole(name)


def test_min_copies_refuses_with_the_reason(clusters: Clusters, children: Children) -> None:
    """Guards invariant 6: no commit is acknowledged with fewer; reads go on; all goes on when the copy is back."""
    cluster = clusters(2, min_copies=2)
    name, db = filled(cluster, children, 50)
    primary, (backup,) = cluster.members(name)
    cluster.kill(cluster.pid(backup))
    eventually("the member is dropped", lambda: cluster.members(name)[1] == [])
    other = children.session(cluster, name, DSPM_COMMIT_TIMEOUT="1s")
    with pytest.raises(SqlError) as failed:
        other.sql("INSERT INTO t VALUES(100000, NULL)")
    assert failed.value.primary == IOERR, failed.value
    assert "min_copies" in failed.value.reason, failed.value.reason
    assert other.one("SELECT count(*) FROM t") == 50
    cluster.up()
    cluster.wait_whole(name)
    other.sql("INSERT INTO t VALUES(100000, NULL)")
    assert db.one("SELECT count(*) FROM t") == 51


def test_without_the_registry_data_flows_and_membership_waits(three: Cluster, children: Children) -> None:
    """Guards invariant 10: a member lost while the registry is away is replaced when it is back."""
    name, db = filled(three, children, 50)
    three.kill(three.registry)
    db.sql("INSERT INTO t VALUES(100000, NULL)")
    primary = three.members(name)[0]
    three.kill(three.pid(primary))
    db.begin("INSERT INTO t VALUES(100001, NULL)")
    assert db.is_waiting(1.0)
    time.sleep(0.5)
    three.up()
    db.answer()
    three.wait_whole(name)
    assert children.session(three, name).one("SELECT count(*) FROM t") == 52
