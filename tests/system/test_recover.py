"""`dspm recover`: more is lost than the copies cover, and an operator says so.

Two of three nodes lose process, memory and disk for good; the third was dropped from the set while it was away, and has
what was committed until then.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .child import Children, Session, SqlError
from .cluster import BIN, Cluster, clean_environment, eventually, fresh
from .conftest import Clusters

BUSY_SNAPSHOT = 517


def destroy(cluster: Cluster, *nodes: str) -> None:
    """For good: process, memory and disk."""
    for n in nodes:
        cluster.kill(cluster.pid(n))
        cluster.arena(n).unlink()
        shutil.rmtree(next(i["data_dir"] for i in cluster.info["nodes"] if i["name"] == n))


def explained(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    done = cluster.run("recover", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["sets"])


class Left:
    """Three copies on three nodes. One was dropped while it was away, and has 10 rows; the others have 15."""

    def __init__(self, cluster: Cluster, children: Children) -> None:
        self.cluster, self.name = cluster, fresh("recover")
        self.db = children.session(cluster, self.name, DSPM_COMMIT_TIMEOUT="60s", DSPM_CACHE_PREFETCH="false")
        self.db.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        self.db.sql("CREATE TABLE u(v)")
        self.write(1, 10)
        primary, backups = cluster.members(self.name)
        self.dropped, self.complete = backups[0], [primary, *backups[1:]]
        self._start = Path(f"/proc/{cluster.pid(self.dropped)}/cmdline").read_text().split("\0")[:-1]
        address = next(str(n["address"]) for n in cluster.info["nodes"] if n["name"] == self.dropped)
        self._start[self._start.index("--listen") + 1] = address
        self.alone: subprocess.Popen[bytes] | None = None
        cluster.kill(cluster.pid(self.dropped))
        eventually("it is dropped", lambda: cluster.status()["sets"][0]["dropped"] == [self.dropped])
        self.write(11, 15)
        self.lsn = int(cluster.dataset(self.name)["lsn"])

    def write(self, first: int, last: int) -> None:
        for i in range(first, last + 1):
            self.db.sql("INSERT INTO t VALUES (?, 'x')", i)

    def rows(self, db: Session) -> int:
        return int(db.one("SELECT count(*) FROM t"))

    def start_dropped(self) -> None:
        """It alone, with its memory."""
        self.alone = subprocess.Popen(self._start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually("it serves", lambda: self.cluster.run("recover").returncode == 0)
        eventually("the dropped one answers", lambda: [p["source"] for p in explained(self.cluster)] == [self.dropped])

    def end_dropped(self) -> None:
        if self.alone is not None:
            self.alone.kill()
            self.alone.wait()
            self.alone = None


@pytest.fixture
def left(clusters: Clusters, children: Children) -> Iterator[Left]:
    made = Left(clusters(3, copies=3, min_copies=1), children)
    yield made
    made.end_dropped()


def on_a_terminal(cluster: Cluster, says: str, *arguments: str) -> tuple[int, str]:
    """`dspm recover` with somebody to ask: its exit status, and what it printed."""
    ours, theirs = pty.openpty()
    env = {**clean_environment(), "DSPM_CONFIG": cluster.config}
    os.write(ours, says.encode())
    command, out = [str(BIN), "recover", *arguments], subprocess.PIPE
    try:
        done = subprocess.run(
            command, env=env, stdin=theirs, stdout=out, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout


def test_a_dropped_member_brings_it_back_when_the_loss_is_accepted(left: Left, children: Children) -> None:
    """Guards every rule of `recover` in turn: nothing without the flag, nothing without a yes, nothing while a complete
    member answers; then the loss is named, and no process takes one history for the other."""
    cluster = left.cluster
    reader = children.session(cluster, left.name, DSPM_CACHE_PREFETCH="false")
    reader.sql("BEGIN")
    assert left.rows(reader) == 15
    # A complete member answers.
    done = cluster.run("recover", left.name, "--accept-loss", "--yes")
    assert done.returncode == 1 and "is not down" in done.stderr and "answers and holds everything" in done.stderr
    assert explained(cluster) == []
    destroy(cluster, *left.complete)
    cluster.up()  # the lost ones as empty machines of the same names
    eventually("the dropped one answers", lambda: [p["source"] for p in explained(cluster)] == [left.dropped])
    before = cluster.status()["sets"][0]
    (plan,) = explained(cluster)
    assert plan["source"] == left.dropped and sorted(plan["given_up"]) == sorted(left.complete)
    (loss,) = plan["losses"]
    assert loss["dataset"] == left.name and loss["lsn"] < left.lsn
    told = cluster.run("recover").stdout
    without = f"{left.complete[0]} (complete) answers, without its memory and without all of its log"
    for text in (without, f"{left.dropped} (dropped) answers with its memory", "loses the commits after LSN"):
        assert text in told, told
    done = cluster.run("recover", "--accept-loss")
    assert done.returncode == 2 and "nothing was changed" in done.stderr
    status, out = on_a_terminal(cluster, "no\n", "--accept-loss")
    assert status == 1 and "may only join again" in out and "nothing was changed" in out
    assert cluster.status()["sets"][0] == before, "nothing was changed"
    status, out = on_a_terminal(cluster, "lose\n", "--accept-loss")
    assert status == 0 and f"goes on from {left.dropped}, in generation" in out, out
    after = cluster.status()["sets"][0]
    assert after["primary"] == left.dropped and left.dropped in after["members"]
    assert after["generation"] > before["generation"] and after["history"] == before["history"] + 1
    # The reader is of the lost history.
    with pytest.raises(SqlError) as gone:
        reader.sql("SELECT v FROM u")
    assert gone.value.code == BUSY_SNAPSHOT, gone.value
    reader.sql("ROLLBACK")
    assert left.rows(reader) == left.rows(left.db) == 10
    left.write(11, 12)
    assert left.rows(reader) == 12 and reader.one("PRAGMA integrity_check") == "ok"
    assert explained(cluster) == []
    cluster.wait_whole(left.name)  # the empty ones have joined
    log = (cluster.directory / "log" / "registry.log").read_text()
    assert "an operator accepts the loss of commits" in log and f"goes_on_from='{left.dropped}'" in log


def test_members_that_were_given_up_join_and_lose_what_they_had(left: Left, children: Children) -> None:
    """Guards the history: who comes back after it went on without it has its commits taken away, not mixed in."""
    cluster = left.cluster
    for n in left.complete:
        cluster.kill(cluster.pid(n))
    left.start_dropped()
    done = cluster.run("recover", "--accept-loss", "--yes", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["sets"][0]["recovered"] is True, done.stderr
    left.write(11, 13)
    left.end_dropped()
    cluster.up()
    cluster.wait_whole(left.name)
    assert left.rows(left.db) == 13
    for n in (left.dropped, *left.complete[:1]):
        cluster.kill(cluster.pid(n))
    last = children.session(cluster, left.name)
    assert left.rows(last) == 13 and last.one("PRAGMA integrity_check") == "ok"


def test_where_nothing_is_left_only_removing_helps(clusters: Clusters, children: Children) -> None:
    """Guards against an empty database in the place of a lost one."""
    cluster = clusters(3)
    name = fresh("nothing")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(a)")
    primary, (backup,) = cluster.members(name)
    cluster.run("node", "drain", next(n for n in cluster.nodes if n not in (primary, backup)))
    destroy(cluster, primary, backup)
    eventually("it is down", lambda: bool(explained(cluster)))
    (plan,) = explained(cluster, name)
    assert plan["source"] is None and plan["losses"] == []
    assert "dspm rm --accept-loss NAME" in cluster.run("recover").stdout
    done = cluster.run("recover", "--accept-loss", "--yes")
    assert done.returncode == 1 and "nothing was changed" in done.stderr and "dspm rm --accept-loss NAME" in done.stderr
    assert cluster.run("rm", "--accept-loss", name).returncode == 0
    assert explained(cluster) == []
    done = cluster.run("recover", name)
    assert done.returncode == 1 and "there is no dataset" in done.stderr
    done = cluster.run("recover", "--set", "00")
    assert done.returncode == 1 and "there is no replica set" in done.stderr
