"""SIGKILL of nodes and of the registry while others write, and `dspm up` again: nothing acknowledged is lost."""

from __future__ import annotations

import pytest

from .child import Children, SqlError
from .cluster import Cluster, fresh
from .conftest import Clusters, rounds
from .ledger import Ledger

CANTOPEN = 14


@pytest.fixture(scope="module", params=["memory", "disk"])
def trio(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """Three nodes, two copies, of either durability."""
    return clusters(3, durability=request.param)


@pytest.fixture(scope="module")
def plain(clusters: Clusters) -> Cluster:
    """Three nodes with the default settings."""
    return clusters(3)


def test_each_node_in_turn(trio: Cluster, children: Children) -> None:
    """Guards durability: the memory of a node outlives its process, and the writers' connections outlive the node."""
    ledger = Ledger(trio, children, fresh("ledger"))
    writers = [ledger.writer(i) for i in range(2)]
    for _ in range(rounds(1)):
        for node in trio.nodes:
            for w in writers:
                w.wait(5)
            trio.kill(trio.pid(node))
            trio.up()
            for w in writers:
                w.wait(5)
    for w in writers:
        w.kill()
    assert ledger.errors == [], "commit_timeout was not over"
    ledger.verify()


def test_all_nodes_at_once(trio: Cluster, children: Children) -> None:
    """Guards the same where nobody is left to ask: all arenas are found again."""
    ledger = Ledger(trio, children, fresh("ledger"))
    writers = [ledger.writer(i) for i in range(2)]
    for w in writers:
        w.wait(20)
    for pid in trio.pids():
        trio.kill(pid)
    trio.up()
    for w in writers:
        w.wait(5)
        w.kill()
    assert ledger.errors == [], "commit_timeout was not over"
    ledger.verify()


def test_down_and_up(trio: Cluster, children: Children) -> None:
    """Guards a planned stop: `dspm down` under load and `dspm up` lose nothing either."""
    ledger = Ledger(trio, children, fresh("ledger"))
    writer = ledger.writer()
    writer.wait(20)
    trio.down()
    trio.up()
    writer.wait(5)
    writer.kill()
    assert ledger.errors == [], "commit_timeout was not over"
    ledger.verify()


def test_a_power_cut_with_durability_disk(clusters: Clusters, children: Children) -> None:
    """Guards durability `disk`: all processes and all memories go at once, and the logs have what was acknowledged."""
    cut = clusters(3, durability="disk")
    ledger = Ledger(cut, children, fresh("ledger"))
    for _ in range(rounds(2)):
        writer = ledger.writer()
        writer.wait(20)
        cut.cut_power()
        writer.kill()
        cut.up()
        cut.wait_whole(ledger.name)
        ledger.verify()


def test_without_the_registry(plain: Cluster, children: Children) -> None:
    """Guards invariant 10: data flows and databases open without the registry; making one says what is missing."""
    ledger = Ledger(plain, children, fresh("ledger"))
    writer = ledger.writer()
    writer.wait(5)
    plain.kill(plain.registry)
    writer.wait(50)
    newcomer = ledger.writer(1)
    newcomer.wait(20)
    late = children.session(plain, DSPM_COMMIT_TIMEOUT="1s")
    name = fresh("new")
    with pytest.raises(SqlError) as failed:
        late.open(name)
        late.sql("CREATE TABLE t(a)")
    assert failed.value.primary == CANTOPEN, failed.value
    assert "registry" in failed.value.reason, failed.value
    assert name not in [d["name"] for d in plain.status()["datasets"]], "half created"
    plain.up()
    late.open(name, at="again")
    late.sql("CREATE TABLE t(a)", at="again")
    for w in (writer, newcomer):
        w.wait(1)
        w.kill()
    assert ledger.errors == []
    ledger.verify()
