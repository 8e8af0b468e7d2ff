"""What ordinary processes do: fork, end by a signal, write to a connection that is gone."""

from __future__ import annotations

import signal

import pytest

from .child import Children
from .cluster import Cluster, fresh
from .conftest import Clusters, rounds
from .ledger import Ledger


@pytest.mark.parametrize("is_open", [False, True], ids=["idle", "in-transaction"])
@pytest.mark.parametrize("way", ["_exit", "exit", "own", "inherited"])
def test_a_child_is_forked_and_ends(cluster: Cluster, children: Children, way: str, is_open: bool) -> None:
    """Guards fork: a child's end touches nothing of the parent's, and what the child inherited is of no use to it."""
    name = fresh("fork")
    (found,) = children.results(cluster, "forks", (name, way, int(is_open)))
    expected = [1, *([2] if is_open else []), 3, 4, *([100] if way == "own" and not is_open else [])]
    assert found == {"child": 0, "rows": expected, "check": "ok"}
    other = children.session(cluster, name)
    assert [r[0] for r in other.sql("SELECT a FROM t")] == expected
    other.sql("INSERT INTO t VALUES(5, 'other')")


def test_children_of_busy_threads_work(cluster: Cluster, children: Children) -> None:
    """Guards fork at any moment: a child keeps no socket of its parent and waits for no lock of its threads."""
    (found,) = children.results(cluster, "fork_load", (fresh("load"), rounds(40)))
    assert found["kept"] == 0, "sockets of the parent are open in its child"
    assert set(found["ends"]) == {0} and found["failed"] == [] and all(found["worked"]), found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_writer_is_ended_by_a_signal(cluster: Cluster, children: Children, number: signal.Signals) -> None:
    """Guards ordinary ends: the process ends at once, and the next one opens the database and finds everything."""
    ledger = Ledger(cluster, children, fresh("ledger"))
    for _ in range(3):
        writer = ledger.writer()
        writer.wait(10)
        writer.kill(number)
    ledger.verify()
    next_one = ledger.writer(1)
    next_one.wait(5)


def test_sigterm_while_others_wait(cluster: Cluster, children: Children) -> None:
    """Guards the hand-over from a process that ends inside a transaction: those in the queue get their turn."""
    name = fresh("queue")
    holder = children.session(cluster, name)
    holder.sql("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    holder.sql("BEGIN IMMEDIATE")
    holder.sql("INSERT INTO t VALUES(0)")
    waiting = [children.session(cluster, name) for _ in range(3)]
    for number, w in enumerate(waiting, 1):
        w.begin("INSERT INTO t VALUES(?)", number)
    assert waiting[0].is_waiting(0.3), "two writers at once"
    holder.signal(signal.SIGTERM)
    holder.process.wait(30)
    for w in waiting:
        w.answer()
    assert [r[0] for r in waiting[0].sql("SELECT a FROM t")] == [1, 2, 3]


def test_sigpipe_does_not_kill(clusters: Clusters, children: Children) -> None:
    """Guards programs that leave SIGPIPE at its default: a node that is gone is an error to them, not their end."""
    pair = clusters(2)
    ledger = Ledger(pair, children, fresh("ledger"))
    writer = ledger.writer(SIGPIPE="default")
    for node in pair.nodes:
        writer.wait(5)
        pair.kill(pair.pid(node))
        pair.up()
        writer.wait(5)
    writer.kill()
    ledger.verify()
