"""All memories of a set are lost with durability `memory`: it goes on from its logs, and LSNs come again with other
content. Nobody may take the one history for the other: not an open snapshot, not SQLite's own page cache, not a write
transaction that began before."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .child import Children, Session, SqlError
from .cluster import Cluster, fresh
from .conftest import Clusters

BUSY_SNAPSHOT = 517
OLD, NEW = "lost", "found"


@pytest.fixture(scope="module")
def forgetful(clusters: Clusters) -> Cluster:
    """Two nodes that write nothing to their logs before they are stopped."""
    return clusters(2, durability="memory", flush_interval="1h")


@dataclass
class History:
    """A database whose first commits are in the logs, and the ones after them in memory only."""

    cluster: Cluster
    children: Children
    name: str

    def session(self) -> Session:
        """A process that fetches only the pages that it is asked for."""
        return self.children.session(self.cluster, self.name, DSPM_CACHE_PREFETCH="false")

    def write(self, value: str) -> int:
        """Two commits, one in each table, from a process that ends; answers their last LSN."""
        writer = self.session()
        for table in ("a", "b"):
            writer.sql(f"UPDATE {table} SET v = ?", value)
        lsn = int(writer.status()["lsn"])
        writer.kill()
        return lsn

    def lose(self) -> None:
        """Every process and every memory goes at once; the logs stay."""
        arenas = [self.cluster.arena(n) for n in self.cluster.nodes]
        for pid in self.cluster.pids():
            self.cluster.kill(pid)
        for arena in arenas:
            arena.unlink()
        self.cluster.up()
        self.cluster.wait_whole(self.name)


@pytest.fixture
def history(forgetful: Cluster, children: Children) -> History:
    """Both tables say OLD at an LSN that is in no log."""
    made = History(forgetful, children, fresh("history"))
    maker = made.session()
    for table in ("a", "b"):
        maker.sql(f"CREATE TABLE {table}(v)")
        maker.sql(f"INSERT INTO {table} VALUES ('logged')")
    maker.kill()
    forgetful.down()
    forgetful.up()
    forgetful.wait_whole(made.name)
    return made


def test_a_warm_cache_of_sqlite(history: History) -> None:
    """The change counter of the lost state and of the one that took its LSN are the same number."""
    lost = history.write(OLD)
    warm = history.session()
    assert [warm.one(f"SELECT v FROM {t}") for t in ("a", "b")] == [OLD, OLD]
    history.lose()
    assert history.write(NEW) == lost, "the LSN came again"
    assert [warm.one(f"SELECT v FROM {t}") for t in ("a", "b")] == [NEW, NEW]


@pytest.mark.parametrize("statement", ["SELECT v FROM b", "UPDATE a SET v = v || '!'"])
def test_an_open_snapshot(history: History, statement: str) -> None:
    """Who has seen table `a` of the lost history is not shown table `b` of the other, and does not commit to it what
    follows from table `a`."""
    lost = history.write(OLD)
    reader = history.session()
    reader.sql("BEGIN")
    assert reader.one("SELECT v FROM a") == OLD
    history.lose()
    assert history.write(NEW) == lost, "the LSN came again"
    with pytest.raises(SqlError) as gone:
        reader.sql(statement)
    assert gone.value.code == BUSY_SNAPSHOT, gone.value
    assert "began before" in gone.value.reason, gone.value
    reader.sql("ROLLBACK")
    assert [reader.one(f"SELECT v FROM {t}") for t in ("a", "b")] == [NEW, NEW]
    reader.sql("UPDATE a SET v = v || '!'")
    assert reader.one("SELECT v FROM a") == NEW + "!"


def test_an_open_write_transaction(history: History) -> None:
    """A transaction that wrote before the loss does not commit its pages on top of the other history."""
    lost = history.write(OLD)
    writer = history.session()
    writer.sql("BEGIN IMMEDIATE")
    writer.sql("UPDATE a SET v = v || '!'")
    history.lose()
    assert history.write(NEW) == lost, "the LSN came again"
    with pytest.raises(SqlError):
        writer.sql("COMMIT")
    assert [history.session().one(f"SELECT v FROM {t}") for t in ("a", "b")] == [NEW, NEW]
    with pytest.raises(SqlError):
        writer.sql("ROLLBACK")  # SQLite has done it
    assert [writer.one(f"SELECT v FROM {t}") for t in ("a", "b")] == [NEW, NEW]
