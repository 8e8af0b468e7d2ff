"""One transaction over two databases: in both or in neither, whoever dies, and nothing acknowledged is lost.

The two have different primaries. What was acknowledged is recorded outside of the processes that are killed. A read of
two databases is not one snapshot, so who verifies takes both write leases first.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass

import pytest

from dspm.formats.layout import Part

from .child import Children, Session, SqlError
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters, rounds, seconds
from .damage import entry, flip, newest_record
from .ledger import Ledger
from .test_torture import torture

BUSY, IOERR, FULL = 5, 10, 13
PAST_THE_LEASE_S = 1.0
BUSY_SNAPSHOT = 517
ACCOUNTS, START = 20, 100
MOST_COMMITS = 12
LONGEST_PAUSE_S = 0.01

# How SQLite commits: at the end of a super-journal, at the first PHASETWO.
PRAGMAS = ["synchronous=FULL", "synchronous=OFF", "journal_mode=MEMORY"]


@dataclass
class Pair(Ledger):
    """Two databases with accounts and a ledger each."""

    other: str = ""
    pragma: str = PRAGMAS[0]

    def command(self) -> tuple[object, ...]:
        """Transfers from one to the other."""
        return ("transfers", self.name, self.other, self.pragma)

    def session(self, **env: str) -> Session:
        """A process that has both open."""
        db = self.children.session(self.cluster, self.name, **env)
        db.sql("ATTACH ? AS aux", self.other)
        return db

    def verify(self, reader: Session | None = None) -> int:
        """Another process finds all of each transfer in both, or nothing of it in either."""
        db = reader or self.session()
        while True:
            # Others may commit between its snapshot and its lease.
            with contextlib.suppress(SqlError):
                db.sql("BEGIN IMMEDIATE")
                break
        both = [db.sql(f"SELECT seq, writer, n FROM {schema}.ledger ORDER BY seq") for schema in ("main", "aux")]
        assert both[0] == both[1], "HALF: a transfer is in one database only"
        total = db.one("SELECT (SELECT sum(balance) FROM main.account) + (SELECT sum(balance) FROM aux.account)")
        assert total == 2 * ACCOUNTS * START, "money was made or lost"
        for schema in ("main", "aux"):
            assert db.one(f"PRAGMA {schema}.integrity_check") == "ok"
        db.sql("COMMIT")
        self.check(both[0])
        return len(both[0])


def pair(cluster: Cluster, children: Children) -> Pair:
    """Two databases whose replica sets have different primaries."""
    names: dict[str, str] = {}
    while len(names) < 2:
        name = fresh("bank")
        db = children.session(cluster, name)
        db.sql("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB)")
        db.sql("CREATE TABLE ledger(seq INTEGER PRIMARY KEY, writer INTEGER, n INTEGER, pad BLOB)")
        db.sql(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
            " INSERT INTO account SELECT i, ?, randomblob(500) FROM n",
            ACCOUNTS,
            START,
        )
        names.setdefault(cluster.members(name)[0], name)
    first, second = names.values()
    return Pair(cluster, children, first, other=second)


@pytest.fixture(scope="module")
def four(clusters: Clusters) -> Cluster:
    """Four nodes that hold two copies of each database."""
    return clusters(4, copies=2)


def kill_writers(ledger: Pair, count: int) -> None:
    chance = random.Random(count)
    reader = ledger.session()
    for i in range(count):
        ledger.pragma = PRAGMAS[i % len(PRAGMAS)]
        writer = ledger.writer(0)
        writer.wait(chance.randint(0, MOST_COMMITS))
        time.sleep(chance.random() * LONGEST_PAUSE_S)
        writer.kill()
        assert writer.errors() == []
        ledger.verify(reader)
    ledger.verify()


def test_writers_killed(four: Cluster, children: Children) -> None:
    """Guards atomicity: a writer dies anywhere in a commit, and what it left is finished or taken back in both."""
    kill_writers(pair(four, children), rounds(9))


@pytest.mark.slow
@pytest.mark.seconds(900)
def test_writers_killed_a_hundred_times(four: Cluster, children: Children) -> None:
    """Guards the same, often enough to meet every step of a commit."""
    kill_writers(pair(four, children), rounds(100))


def kill_primaries(ledger: Pair, count: int, with_writer: bool) -> None:
    cluster, chance = ledger.cluster, random.Random(count)
    writers = [ledger.writer(i) for i in range(2)]
    for i in range(count):
        for w in writers:
            w.wait(1)
        name = (ledger.other, ledger.name)[(i + with_writer) % 2]
        primary = cluster.pid(cluster.members(name)[0])
        time.sleep(chance.random() * LONGEST_PAUSE_S)
        if with_writer:
            writers[0].process.send_signal(signal.SIGKILL)
        cluster.kill(primary)
        if with_writer:
            writers[0].kill()
            writers[0] = ledger.writer(0)
        for w in writers:
            w.wait(2)
        cluster.up()
        for name in (ledger.name, ledger.other):
            cluster.wait_whole(name)
    for w in writers:
        w.kill()
    ledger.verify()
    for error in ledger.errors:
        stage, code = error.split()[1:3]
        assert int(code) & 0xFF in (BUSY, IOERR, FULL), f"{stage}: {error}"


@pytest.mark.parametrize("with_writer", [False, True], ids=["alone", "with-a-writer"])
def test_primaries_killed(four: Cluster, children: Children, with_writer: bool) -> None:
    """Guards the same where the participant's primary dies, or the decider's and a writer with it."""
    kill_primaries(pair(four, children), rounds(1), with_writer)


@pytest.mark.slow
@pytest.mark.seconds(900)
@pytest.mark.parametrize("with_writer", [False, True], ids=["alone", "with-a-writer"])
def test_primaries_killed_often(four: Cluster, children: Children, with_writer: bool) -> None:
    """Guards the same, often."""
    kill_primaries(pair(four, children), rounds(20), with_writer)


def test_a_few_faults(four: Cluster, children: Children) -> None:
    """Guards the same under faults that meet: nodes, registry and writers are killed, stopped and continued."""
    torture(pair(four, children), seed=int(os.environ.get("SYSTEM_SEED", "2")), length=4)


@pytest.mark.slow
@pytest.mark.seconds(3600)
@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_many_faults(clusters: Clusters, children: Children, durability: str) -> None:
    """Guards the same for longer, with a seed that is printed when it fails."""
    harmed = clusters(4, copies=2, durability=durability)
    seed = int(os.environ.get("SYSTEM_SEED", str(random.randrange(1 << 32))))
    torture(pair(harmed, children), seed, seconds(60))
    harmed.end()


@pytest.mark.parametrize("lost", ["name", "other"])
def test_a_lease_lost_in_one_is_a_conflict_in_both(four: Cluster, children: Children, lost: str) -> None:
    """Guards fencing: a writer stood still for longer than its lease, and somebody else wrote one of the two."""
    ledger = pair(four, children)
    db, beside = ledger.session(), children.session(four, getattr(ledger, lost))
    db.sql("BEGIN IMMEDIATE")
    for schema in ("main", "aux"):
        db.sql(f"UPDATE {schema}.account SET balance = 0")
    db.signal(signal.SIGSTOP)
    time.sleep(PAST_THE_LEASE_S)
    beside.sql("UPDATE account SET pad = NULL")
    db.signal(signal.SIGCONT)
    with pytest.raises(SqlError) as failed:
        db.sql("COMMIT")
    assert failed.value.code in (BUSY_SNAPSHOT, IOERR), failed.value
    ledger.verify(db)
    db.sql("BEGIN IMMEDIATE")
    for schema in ("main", "aux"):
        db.sql(f"UPDATE {schema}.account SET balance = ?", START)
    db.sql("COMMIT")
    ledger.verify()


def test_nothing_is_decided_while_a_set_stands_still(clusters: Clusters, children: Children) -> None:
    """Guards the order: without all prepared records there is no decision, and what was prepared is taken back."""
    apart = clusters(4, copies=2, failover="false")  # else another member takes the place of the one that stands still
    ledger = pair(apart, children)
    _, (backup,) = apart.members(ledger.other)
    db = ledger.session(DSPM_COMMIT_TIMEOUT="2s")
    db.sql("BEGIN IMMEDIATE")
    for schema in ("main", "aux"):
        db.sql(f"UPDATE {schema}.account SET balance = 0")
    os.kill(apart.pid(backup), signal.SIGSTOP)
    with pytest.raises(SqlError) as failed:
        db.sql("COMMIT")
    assert failed.value.primary in (BUSY, IOERR), failed.value
    os.kill(apart.pid(backup), signal.SIGCONT)
    for name in (ledger.name, ledger.other):
        apart.wait_whole(name)
    ledger.verify()
    apart.end()


def test_a_damaged_prepared_record_is_taken_back(clusters: Clusters, children: Children) -> None:
    """Guards the next writer: what cannot be read in the ring could not be sent, nor taken back, before a restart."""
    apart = clusters(4, copies=2, failover="false", scrub__rate="0")
    ledger = pair(apart, children)
    primary, (backup,) = apart.members(ledger.other)
    db = ledger.session(DSPM_COMMIT_TIMEOUT="2s")
    db.sql("BEGIN IMMEDIATE")
    for schema in ("main", "aux"):
        db.sql(f"UPDATE {schema}.account SET balance = 0")
    os.kill(apart.pid(backup), signal.SIGSTOP)
    with pytest.raises(SqlError):
        db.sql("COMMIT")
    db.process.kill()
    record, at = newest_record(apart, primary, entry(apart, ledger.other).group)
    assert record.part == Part.PREPARED
    flip(apart.arena(primary), at + 80)
    os.kill(apart.pid(backup), signal.SIGCONT)
    for name in (ledger.name, ledger.other):
        apart.wait_whole(name)
    ledger.verify()
    damaged = next(n for n in apart.status()["nodes"] if n["name"] == primary)
    assert damaged["checksum_errors"] > 0
    apart.end()


def test_who_waits_for_a_set_that_is_away_is_told_for_which(clusters: Clusters, children: Children) -> None:
    """Guards writers behind a decision that a participant cannot resolve: BUSY, and the name of the other database."""
    apart = clusters(2, copies=1, failover="false")  # one node each: nobody takes its place
    ledger, chance = pair(apart, children), random.Random(1)
    away = apart.pid(apart.members(ledger.other)[0])
    db, told = children.session(apart, ledger.name), ""
    for _ in range(40):
        writer = ledger.writer(0)
        writer.wait(2)
        time.sleep(chance.random() * LONGEST_PAUSE_S)
        os.kill(away, signal.SIGSTOP)
        try:
            writer.kill()
            told = reason_to_wait(db)
            if told:
                assert db.one("SELECT count(*) FROM ledger") > 0, "reads go on"
        finally:
            os.kill(away, signal.SIGCONT)
        eventually("writers go on", lambda: not reason_to_wait(db))
        ledger.verify()
        if told:
            break
    assert ledger.name in told and f"waits for dataset {ledger.other}" in told, told
    apart.end()


def reason_to_wait(db: Session) -> str:
    """What a writer without a busy timeout is told; nothing if it gets its turn."""
    db.sql("PRAGMA busy_timeout = 0")
    for _ in range(2):  # the second time what was committed just now is known
        try:
            db.sql("BEGIN IMMEDIATE")
            db.sql("ROLLBACK")
            return ""
        except SqlError as e:
            assert e.primary == BUSY, e
            if e.code == BUSY:
                return e.reason
    return ""
