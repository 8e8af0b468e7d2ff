"""Many writers and readers of one database: money is neither made nor lost, and everybody gets a turn."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from .child import Children, result
from .cluster import Cluster, fresh
from .conftest import Clusters, seconds

ACCOUNTS = 50
START = 100

# The least share of the mean that a writer gets. Processes that ask to write stand in a queue; threads of one process,
# and whoever reads first and wants to write later, compete: they only have to get there.
QUEUED, COMPETING = 0.3, 0.0


@pytest.fixture
def bank(cluster: Cluster, children: Children) -> str:
    return make_bank(cluster, children)


def make_bank(cluster: Cluster, children: Children) -> str:
    name = fresh("bank")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, moves INTEGER, pad BLOB)")
    # Wide rows: the accounts lie on several pages.
    db.sql(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
        " INSERT INTO account SELECT i, ?, 0, randomblob(300) FROM n",
        ACCOUNTS,
        START,
    )
    return name


@pytest.mark.parametrize(
    ("mode", "processes", "threads"),
    [("immediate", 4, 1), ("autocommit", 4, 1), ("deferred", 3, 1), ("immediate", 1, 4), ("autocommit", 2, 2)],
)
def test_transfers(cluster: Cluster, children: Children, bank: str, mode: str, processes: int, threads: int) -> None:
    """Guards isolation and fairness: the sum holds in every read, acknowledged transfers are there, none starves."""
    time = seconds(2.5)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    reader = children.start(cluster, "bank", "read", bank, time, **pipes)
    writers = [
        children.start(cluster, "bank", "transfer", bank, mode, threads, time, i, **pipes) for i in range(processes)
    ]
    counts = []
    for w in writers:
        done = result(w)
        assert done["errors"] == []
        counts += done["counts"]
    seen = result(reader)
    assert seen["sums"] == [ACCOUNTS * START], "a read saw half a transaction"
    assert seen["odd"] == 0 and seen["back"] == 0 and seen["reads"] > 2
    db = children.session(cluster, bank)
    assert db.sql("SELECT sum(balance), sum(moves) FROM account") == [[ACCOUNTS * START, 2 * sum(counts)]]
    assert db.one("PRAGMA integrity_check") == "ok"
    assert len(counts) == processes * threads
    share = QUEUED if threads == 1 and mode != "deferred" else COMPETING
    assert min(counts) >= max(1, share * sum(counts) / len(counts)), f"a writer starves: {counts}"


def test_a_small_memory_pushes_back(clusters: Clusters, children: Children) -> None:
    """Guards back-pressure: writers faster than the disk behind a small memory wait, and lose no transaction."""
    small = clusters(2, memory="16MiB")
    name = make_bank(small, children)
    results = children.results(small, "bank", *(("transfer", name, "immediate", 1, seconds(2.5), i) for i in range(4)))
    assert [r["errors"] for r in results] == [[], [], [], []]
    moves = 2 * sum(sum(r["counts"]) for r in results)
    assert children.session(small, name).sql("SELECT sum(balance), sum(moves) FROM account") == [[5000, moves]]
