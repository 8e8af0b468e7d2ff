"""Limits of a node's memory and disk: writers wait, nobody is told of anything else, and nothing is lost."""

from __future__ import annotations

import urllib.request

import pytest

from .child import Children
from .cluster import Cluster, fresh
from .conftest import Clusters, seconds

KIB = 1024


def metric(cluster: Cluster, name: str) -> int:
    """A figure of the nodes, summed."""
    total = 0.0
    for node in cluster.info["nodes"]:
        with urllib.request.urlopen(node["metrics_url"], timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        total += sum(float(line.split()[1]) for line in lines if line.split()[0] in (name, f"{name}_total"))
    return int(total)


def make_table(cluster: Cluster, children: Children) -> str:
    name = fresh("load")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE load(writer INTEGER, slot INTEGER, n INTEGER, content BLOB, PRIMARY KEY(writer, slot))")
    return name


def load(
    cluster: Cluster, children: Children, name: str, length: float, writers: int, size: int, rows: int
) -> list[int]:
    """Writers for a time; what they were told of is there, byte for byte. Returns how often each committed."""
    calls = [(name, length, i, size, rows) for i in range(writers)]
    done = children.results(cluster, "load", *calls, seconds=length + 90)
    assert [d["errors"] for d in done] == [[]] * writers
    found = children.results(cluster, "load", (name,))[0]
    assert found == {str(i): d["last"] for i, d in enumerate(done) if d["count"]}
    return [int(d["count"]) for d in done]


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_more_than_the_memory_holds(clusters: Clusters, children: Children, durability: str) -> None:
    """Guards the wait for room: large transactions of several writers, several times a node's memory in all."""
    small = clusters(2, memory="16MiB", durability=durability)
    counts = load(small, children, make_table(small, children), seconds(4), 3, 400 * KIB, 6)
    assert min(counts) > 0
    assert metric(small, "dspm_commits_without_room") > 0, "the limit was not reached"
    assert metric(small, "dspm_alarms") == 0
    small.end()
