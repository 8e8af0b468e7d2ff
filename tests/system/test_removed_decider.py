"""A database that is removed, or that an old state of the registry does not know, in the middle of a transaction.

One copy of each database, each at a node of its own, so that a test chooses who hears what: main is the decider, those
that are attached are participants. A node that stands still has heard a record only if it is in its socket; killed, it
has not, and what it held before it holds again when it is started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import urllib.request

import pytest

from .child import Children, Session
from .cluster import Cluster, clean_environment, eventually, fresh
from .conftest import Clusters

INQUIRIES = 150
"""Said each 50 ms: so many are longer than a registry's start and any time after which silence could be an answer."""
PATIENCE = "50s"


def metric(cluster: Cluster, node: str, name: str) -> int:
    """A counter of one node."""
    url = next(n["metrics_url"] for n in cluster.info["nodes"] if n["name"] == node)
    with urllib.request.urlopen(url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return int(float(next(x.split()[1] for x in lines if x.startswith(f"dspm_{name}_total "))))


def database(cluster: Cluster, children: Children, node: str) -> str:
    """A new database at that node."""
    while True:
        name = fresh(node)
        db = children.session(cluster, name)
        db.sql("CREATE TABLE t(a)")
        db.sql("INSERT INTO t VALUES (0)")
        db.close()
        db.kill()
        if cluster.members(name)[0] == node:
            return name


def value(cluster: Cluster, children: Children, name: str) -> int:
    """What another process reads."""
    db = children.session(cluster, name, DSPM_COMMIT_TIMEOUT=PATIENCE)
    found = int(db.one("SELECT a FROM t"))
    db.kill()
    return found


def write(cluster: Cluster, children: Children, name: str) -> None:
    """Another process writes: not before a transaction that is under way there has ended."""
    db = children.session(cluster, name, DSPM_COMMIT_TIMEOUT=PATIENCE)
    db.sql("PRAGMA busy_timeout=30000")
    db.sql("UPDATE t SET a = a + 10")
    db.kill()


def stop(cluster: Cluster, node: str) -> None:
    os.kill(cluster.pid(node), signal.SIGSTOP)


def go_on(cluster: Cluster, node: str) -> None:
    os.kill(cluster.pid(node), signal.SIGCONT)


def begun(cluster: Cluster, children: Children, names: list[str]) -> Session:
    """A process whose transaction has written all of them."""
    db = children.session(cluster, names[0])
    schemas = ["main"]
    for i, name in enumerate(names[1:]):
        schemas.append(f"aux{i}")
        db.sql(f"ATTACH ? AS aux{i}", name)
    db.sql("BEGIN IMMEDIATE")
    for schema in schemas:
        db.sql(f"UPDATE {schema}.t SET a = 1")
    return db


def prepare(cluster: Cluster, db: Session, nodes: list[str]) -> None:
    """It commits, and these nodes hold its prepared records; the decider's stands still."""
    before = {n: metric(cluster, n, "commits") for n in nodes}
    db.begin("COMMIT")
    eventually("it is prepared", lambda: all(metric(cluster, n, "commits") > before[n] for n in nodes))


def commands(pid: int) -> list[str]:
    """How a process was started."""
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        return [part.decode() for part in f.read().split(b"\0")[:-1]]


@pytest.fixture
def three(clusters: Clusters) -> Cluster:
    """Three nodes, one copy."""
    return clusters(3, copies=1, lease="300ms")


def test_an_old_state_does_not_remove_the_decider(clusters: Clusters, children: Children) -> None:
    """Guards atomicity: the registry goes on from a state that is older than the decider, who is away; it said no."""
    cluster = clusters(2, copies=1)
    participant = database(cluster, children, "n2")
    database(cluster, children, "n1")  # so that the old state has its set
    state = cluster.directory / "registry" / "registry.db"
    cluster.down()
    shutil.copy(state, state.with_suffix(".old"))
    cluster.up()
    decider = database(cluster, children, "n1")
    db = begun(cluster, children, [decider, participant])
    stop(cluster, "n1")
    prepare(cluster, db, ["n2"])
    db.kill()
    command = commands(cluster.registry)
    for pid in (cluster.pid("n1"), cluster.registry):
        cluster.kill(pid)
    newest = state.with_suffix(".newest")
    state.rename(newest)
    shutil.copy(state.with_suffix(".old"), state)
    asked = metric(cluster, "n2", "inquiries")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=clean_environment(), **quiet) as old:
        try:
            eventually("the old state is told", lambda: decider not in cluster.run("ls", "--json").stdout)
            eventually("the decider was asked for", lambda: metric(cluster, "n2", "inquiries") > asked + INQUIRIES)
            assert value(cluster, children, participant) == 0, "HALF: nobody said that it counts"
            waits = cluster.dataset(participant)["waits"]
            assert waits.startswith("waits for the decision of group "), waits
            assert not waits.endswith(")"), "its name is not known any more"
            assert old.poll() is None
        finally:
            old.kill()
    newest.replace(state)
    cluster.up()
    write(cluster, children, participant)
    write(cluster, children, decider)
    assert (value(cluster, children, decider), value(cluster, children, participant)) == (10, 10)
    cluster.end()


def test_a_decider_that_said_no_and_is_removed(three: Cluster, children: Children) -> None:
    """Guards atomicity: one participant heard "no"; the other asks when the decider is gone."""
    decider, first, second = (database(three, children, n) for n in three.nodes)
    db = begun(three, children, [decider, first, second])
    stop(three, "n1")
    prepare(three, db, ["n2", "n3"])
    stop(three, "n3")
    db.kill()
    eventually("status names the decider", lambda: three.dataset(first)["waits"].endswith(f"({decider})"))
    assert f"{first} waits for the decision of group " in three.run("status").stdout
    command = commands(three.pid("n1"))
    address = next(n["address"] for n in three.info["nodes"] if n["name"] == "n1")
    command[command.index("--listen") + 1] = address
    three.kill(three.pid("n1"))  # with what was in its socket
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment()) as n1:
        try:
            assert n1.stdout is not None and b"address" in n1.stdout.readline()
            write(three, children, first)
            assert value(three, children, first) == 10, "it heard something else than no"
            removed = three.run("rm", decider)
            assert removed.returncode == 0, removed.stderr
            go_on(three, "n3")
            write(three, children, second)
            assert value(three, children, second) == 10, "HALF: it is in one database only"
        finally:
            n1.kill()
    three.end()


def test_a_decider_is_not_removed_before_all_know(three: Cluster, children: Children) -> None:
    """Guards the same: all hold the decision, one participant stands still; and a name that is created again."""
    decider, first, second = (database(three, children, n) for n in three.nodes)
    db = begun(three, children, [decider, first, second])
    stop(three, "n1")
    prepare(three, db, ["n2", "n3"])
    stop(three, "n3")
    go_on(three, "n1")
    write(three, children, first)
    assert value(three, children, first) == 11, "it was decided"
    db.kill()
    refused = three.run("rm", decider)
    assert refused.returncode == 3 and "transaction over several databases" in refused.stderr, refused.stderr
    assert "--accept-loss" in refused.stderr and value(three, children, decider) == 1, refused.stderr
    go_on(three, "n3")
    write(three, children, second)
    assert value(three, children, second) == 11
    removed = three.run("rm", decider)
    assert removed.returncode == 0, removed.stderr
    again = children.session(three, decider)
    again.sql("CREATE TABLE t(a)")
    again.sql("INSERT INTO t VALUES (5)")
    assert value(three, children, decider) == 5
    three.end()


def test_what_is_lost_is_removed_if_that_is_accepted(clusters: Clusters, children: Children) -> None:
    """A set without a member that serves: who removes its dataset has to say that he knows."""
    cluster = clusters(2, copies=1)
    name = database(cluster, children, "n1")
    cluster.kill(cluster.pid("n1"))
    refused = cluster.run("rm", name)
    assert refused.returncode == 3 and "--accept-loss" in refused.stderr, refused.stderr
    assert cluster.run("rm", "--accept-loss", name).returncode == 0
    assert name not in cluster.run("ls", "--json").stdout
    cluster.end()
