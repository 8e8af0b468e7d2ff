"""A transaction that begins after a commit was acknowledged sees it, in whatever process it begins."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from .child import Children, result
from .cluster import Cluster, fresh
from .conftest import rounds


def hand_over(cluster: Cluster, children: Children, count: int, both: bool) -> None:
    name = fresh("turn")
    children.session(cluster, name).sql("CREATE TABLE turn(n INTEGER PRIMARY KEY)")
    there, back = os.pipe(), os.pipe()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        players = [
            children.start(
                cluster, "handoff", name, count, receive, send, first, writes, pass_fds=(receive, send), **pipes
            )
            for receive, send, first, writes in ((back[0], there[1], 1, 1), (there[0], back[1], 0, int(both)))
        ]
    finally:
        for fd in (*there, *back):
            os.close(fd)
    results = [result(p, 140) for p in players]
    assert [r["stale"] for r in results] == [0, 0], "a transaction did not see what was acknowledged before it began"
    assert max(r["last"] for r in results) == count * (2 if both else 1) - 1


@pytest.mark.parametrize("both", [True, False], ids=["both-write", "one-reads"])
def test_a_begin_after_an_acknowledgement_sees_it(cluster: Cluster, children: Children, both: bool) -> None:
    """Guards strict serializability across processes, with the write lease on the move and with a reader without it."""
    hand_over(cluster, children, rounds(300), both)


@pytest.mark.slow
@pytest.mark.parametrize("both", [True, False], ids=["both-write", "one-reads"])
def test_two_thousand_hand_overs(cluster: Cluster, children: Children, both: bool) -> None:
    """Guards the same, often enough to meet leases that lapse and are renewed."""
    hand_over(cluster, children, rounds(2000), both)
