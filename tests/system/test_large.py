"""Transactions of a hundred megabytes and more: one record, whatever happens to the members on its way.

Fault model: nodes killed and started again with their memory; a backup stopped or killed while the record is sent.
"""

from __future__ import annotations

import os
import signal

import pytest

from .child import ANSWER_SECONDS, Children, Row, Session, SqlError
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters
from .test_back_pressure import FULL, metric

MIB = 1 << 20
IOERR, BUSY = 10, 5
ROW = 12_200
"""Bytes of a row: it fills three pages but for a few bytes."""
LARGE = 110 * MIB // (3 * 4096)
"""Rows of a large transaction."""
PATIENT = {"DSPM_COMMIT_TIMEOUT": "40s"}


@pytest.fixture(scope="module")
def pair(clusters: Clusters) -> Cluster:
    """Two nodes of the usual memory, which may hold 168 MiB in one record."""
    return clusters(2, memory="512MiB")


def insert(rows: int) -> str:
    """A statement that makes that many rows that no two transactions have in common."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    return f"{numbers} INSERT INTO t(b) SELECT randomblob({ROW}) FROM n"


def fingerprint(db: Session) -> list[Row]:
    """Something of every row's beginning, middle and end."""
    parts = "hex(substr(b, 1, 4)) || hex(substr(b, 6000, 4)) || hex(substr(b, -4))"
    return db.sql(f"SELECT count(*), group_concat({parts}) FROM (SELECT b FROM t ORDER BY a)")


def made(cluster: Cluster, children: Children) -> tuple[str, Session]:
    name = fresh("large")
    db = children.session(cluster, name, **PATIENT)
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    return name, db


def test_a_large_transaction_outlives_all_nodes(pair: Cluster, children: Children) -> None:
    """Guards COMMIT, restart and VACUUM of one record of 110 MiB, and the limit above it."""
    name, db = made(pair, children)
    db.sql("BEGIN")
    db.sql(insert(LARGE))
    expected = fingerprint(db)
    db.sql("COMMIT")
    assert fingerprint(children.session(pair, name)) == expected
    for node in pair.nodes:
        pair.kill(pair.pid(node))
    pair.up()
    other = children.session(pair, name, **PATIENT)
    assert fingerprint(other) == expected

    other.sql("DELETE FROM t WHERE a % 10 = 0")
    kept, size = fingerprint(other), other.one("PRAGMA page_count")
    other.sql("VACUUM")
    assert size * 4096 > 100 * MIB and other.one("PRAGMA page_count") < size * 0.95
    assert fingerprint(db) == kept
    check_too_large(db, kept)
    assert db.one("PRAGMA integrity_check") == "ok"
    assert metric(pair, "dspm_alarms") == metric(pair, "dspm_checksum_errors") == 0


def check_too_large(db: Session, before: list[Row]) -> None:
    """More than a member takes in one record is refused before any of it is sent, and the connection works on."""
    db.sql("BEGIN")
    db.sql("INSERT INTO t(b) VALUES(zeroblob(?))", 176 * MIB)
    with pytest.raises(SqlError) as caught:
        db.sql("COMMIT")
    assert caught.value.code == FULL, caught.value
    assert "a transaction of" in caught.value.reason and "has memory for at most" in caught.value.reason
    assert fingerprint(db) == before
    db.sql(insert(1))


def test_what_a_backup_missed_is_brought_to_it(pair: Cluster, children: Children) -> None:
    """Guards Replicate of a record that no queue holds: the primary has it, the backup comes back without it."""
    name, db = made(pair, children)
    primary, (backup,) = pair.members(name)
    db.sql("BEGIN")
    db.sql(insert(LARGE))
    expected = fingerprint(db)
    before = metric(pair, "dspm_commits", of=primary)
    os.kill(pair.pid(backup), signal.SIGSTOP)
    db.begin("COMMIT")
    eventually("the primary has the record", lambda: metric(pair, "dspm_commits", of=primary) > before)
    pair.kill(pair.pid(backup))
    pair.up()
    assert db.answer() == [], "completed by the settle, so COMMIT succeeds"
    pair.wait_whole(name)
    assert fingerprint(children.session(pair, name)) == expected
    pair.kill(pair.pid(primary))
    pair.up()
    assert fingerprint(children.session(pair, name, **PATIENT)) == expected
    assert metric(pair, "dspm_alarms") == 0


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_backup_fails_on_the_way(pair: Cluster, children: Children, number: signal.Signals, after: float) -> None:
    """Guards the outcome of a COMMIT whose record is cut off anywhere: all of it or nothing, as it says."""
    name, db = made(pair, children)
    db.sql(insert(3))
    old = fingerprint(db)
    _, (backup,) = pair.members(name)
    db.sql("BEGIN")
    db.sql(insert(LARGE))
    new = fingerprint(db)
    db.begin("COMMIT")
    db.is_waiting(after)
    os.kill(pair.pid(backup), number)
    db.is_waiting(2)
    pair.mend()
    try:
        db.answer(ANSWER_SECONDS)
        possible = [new]
    except SqlError as e:
        assert e.primary in (IOERR, BUSY), e
        possible = [old, new] if "unknown" in e.reason else [old]
    pair.wait_whole(name)
    found = fingerprint(children.session(pair, name, **PATIENT))
    assert found in possible
    db.sql(insert(1))
    assert db.one("SELECT count(*) FROM t") == found[0][0] + 1
    assert metric(pair, "dspm_alarms") == 0
