"""A member is down: writes wait and then fail with the reason, reads go on where they can, and it all comes back."""

from __future__ import annotations

import pytest

from .child import Children, Session, SqlError
from .cluster import Cluster, fresh
from .conftest import Clusters

TIMEOUT = {"DSPM_COMMIT_TIMEOUT": "1s"}
IOERR = 10


@pytest.fixture(scope="module")
def pair(clusters: Clusters) -> Cluster:
    """Two nodes that hold two copies: no commit without both."""
    return clusters(2, min_copies=2)


@pytest.fixture
def filled(pair: Cluster, children: Children) -> tuple[str, Session]:
    """A database of some hundred pages, and the connection that made it."""
    name = fresh("outage")
    db = children.session(pair, name, **TIMEOUT)
    db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    db.sql("CREATE TABLE small(a INTEGER PRIMARY KEY)")
    db.sql("INSERT INTO small VALUES(1)")
    db.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO t SELECT i, randomblob(2000) FROM n"
    )
    return name, db


def refused(db: Session, sql: str) -> SqlError:
    with pytest.raises(SqlError) as failed:
        db.sql(sql)
    assert failed.value.primary == IOERR, failed.value
    return failed.value


@pytest.mark.parametrize("who", ["backup", "primary"])
def test_a_write_while_a_member_is_down(
    pair: Cluster, children: Children, filled: tuple[str, Session], who: str
) -> None:
    """Guards "never fewer copies": IOERR with the reason; the same connection works again when the member is back."""
    name, db = filled
    primary, (backup,) = pair.members(name)
    node = backup if who == "backup" else primary
    pair.kill(pair.pid(node))
    first = refused(db, "INSERT INTO small VALUES(2)")
    assert "outcome" in first.reason and name in first.reason and "commit_timeout" in first.reason, first.reason
    second = refused(db, "INSERT INTO small VALUES(3)")
    assert name in second.reason, second.reason
    pair.up()
    rows = [r[0] for r in db.sql("SELECT a FROM small")]
    assert rows in ([1], [1, 2]), "what was in doubt is there or not; what came after it was never sent"
    db.sql("INSERT INTO small VALUES(4)")
    assert [r[0] for r in children.session(pair, name).sql("SELECT a FROM small")] == [*rows, 4]
    assert db.one("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("who", ["backup", "primary"])
def test_a_begin_while_a_member_is_down(
    pair: Cluster, children: Children, filled: tuple[str, Session], who: str
) -> None:
    """Guards the same for a process that has to ask for the lease first: nothing is sent, so the error is certain."""
    name, _ = filled
    other = children.session(pair, name, **TIMEOUT)
    assert other.one("SELECT count(*) FROM small") == 1
    primary, (backup,) = pair.members(name)
    pair.kill(pair.pid(backup if who == "backup" else primary))
    failed = refused(other, "BEGIN IMMEDIATE")
    assert name in failed.reason and "outcome" not in failed.reason, failed.reason
    pair.up()
    other.sql("INSERT INTO small VALUES(2)")
    assert other.sql("SELECT a FROM small") == [[1], [2]]


def test_a_writer_that_waits_long_enough(pair: Cluster, children: Children, filled: tuple[str, Session]) -> None:
    """Guards patience: within commit_timeout the member comes back and COMMIT returns, without an error, once."""
    name, _ = filled
    db = children.session(pair, name, DSPM_COMMIT_TIMEOUT="60s")
    db.sql("INSERT INTO small VALUES(2)")
    for number, node in enumerate(pair.nodes, 3):
        pair.kill(pair.pid(node))
        db.begin("INSERT INTO small VALUES(?)", number)
        assert db.is_waiting(0.8), "COMMIT returned although a member was down"
        pair.up()
        db.answer()
    assert db.sql("SELECT a FROM small") == [[1], [2], [3], [4]]


def test_reads_with_a_backup_down(pair: Cluster, children: Children, filled: tuple[str, Session]) -> None:
    """Guards reading: while nobody tries to write, a missing backup stops no reader, of any process."""
    name, db = filled
    other = children.session(pair, name, **TIMEOUT)
    pair.kill(pair.pid(pair.members(name)[1][0]))
    assert pair.status()["degraded"] is True and pair.dataset(name)["copies_now"] == 1, "fewer copies, silently"
    assert other.one("SELECT sum(length(b)) FROM t") == 1_000_000
    assert other.one("PRAGMA integrity_check") == "ok"
    assert db.one("SELECT count(*) FROM t") == 500
    assert children.session(pair, name, **TIMEOUT).one("SELECT count(*) FROM t") == 500
    pair.up()
    pair.wait_whole(name)
    assert pair.status()["degraded"] is False


def test_reads_with_the_primary_down(pair: Cluster, children: Children, filled: tuple[str, Session]) -> None:
    """Guards reading: open snapshots go on from the backup, and new ones where it serves in the primary's place."""
    name, _ = filled
    reader = children.session(pair, name, **TIMEOUT)
    reader.sql("BEGIN")
    assert reader.one("SELECT count(*) FROM small") == 1
    late = children.session(pair, name, **TIMEOUT)
    assert late.one("SELECT count(*) FROM small") == 1
    primary = pair.members(name)[0]
    pair.kill(pair.pid(primary))
    assert reader.one("SELECT sum(length(b)) FROM t") == 1_000_000, "pages that this process had never read"
    assert late.one("SELECT count(*) FROM small") == 1
    assert reader.one("SELECT count(*) FROM t") == 500
    reader.sql("COMMIT")
    assert reader.one("SELECT count(*) FROM small") == 1
    assert primary not in pair.members(name)[0]
    pair.up()
    assert late.one("SELECT count(*) FROM small") == 1
    assert reader.one("SELECT count(*) FROM small") == 1


def test_opening_while_all_are_down(pair: Cluster, children: Children, filled: tuple[str, Session]) -> None:
    """Guards the error of a cluster that is not there: CANTOPEN with the reason, and no hang."""
    name, db = filled
    for node in pair.nodes:
        pair.kill(pair.pid(node))
    with pytest.raises(SqlError) as failed:
        late = children.session(pair, **TIMEOUT)
        late.open(name)
        late.sql("SELECT count(*) FROM small")
    assert failed.value.primary in (IOERR, 14) and failed.value.reason, failed.value
    pair.up()
    late.open(name)
    assert late.one("SELECT count(*) FROM small") == 1
    assert db.one("SELECT count(*) FROM small") == 1
    db.sql("INSERT INTO small VALUES(2)")
