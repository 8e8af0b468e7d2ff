"""Nodes that are told nonsense by peers who know the key."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .child import Children
from .cluster import Cluster, alive, clean_environment, fresh
from .conftest import Clusters, rounds

ROOT = Path(__file__).resolve().parents[2]


def fuzz(cluster: Cluster, inputs: int) -> str:
    """Runs dspm-fuzz against the nodes; cargo builds it if it is not there."""
    command = [
        "cargo",
        "run",
        "-q",
        "--release",
        "--locked",
        "-p",
        "dspm-fuzz",
        "--",
        "--live",
        "--inputs",
        str(inputs),
    ]
    env = {**clean_environment(), "DSPM_CONFIG": cluster.config}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_nodes_bear_hostile_messages(clusters: Clusters, children: Children) -> None:
    """Guards nodes: harmed messages of every kind end no process, and a database beside works on unharmed."""
    cluster = clusters(3, memory="64MiB")
    db = children.session(cluster, fresh("beside"))
    db.sql("CREATE TABLE t(a)")
    db.sql("INSERT INTO t VALUES(1)")
    pids = cluster.pids()
    said = fuzz(cluster, rounds(10_000))
    assert int(re.findall(r"sent=(\d+)", said)[0]) >= rounds(10_000) and "answered_bytes=0" not in said, said
    assert cluster.pids() == pids and all(alive(p) for p in pids)
    db.sql("INSERT INTO t VALUES(2)")
    other = children.session(cluster, db.status()["dataset"])
    assert other.sql("SELECT a FROM t") == [[1], [2]]
    assert other.one("PRAGMA integrity_check") == "ok"
