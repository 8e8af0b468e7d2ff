"""Bits that flip in a running node's memory: what is read is what another member has, and never an error."""

from __future__ import annotations

import os
import random
from pathlib import Path

from dspm.bench.torture import damage
from dspm.netram import config
from dspm.netram.status import Survey

from .child import Children
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters

FLIPS = 12


def group_at(cluster: Cluster, name: str, node: str) -> tuple[int, int, int]:
    """The dataset's group, its tail and what is flushed of it at that node."""
    with Survey(config.load_file(Path(cluster.config))) as survey:
        for page in survey.pages(lambda d: d.name == name):
            for d in page.datasets:
                status = page.groups[node][d.group]
                return d.group, status.lsn, status.flushed
    raise AssertionError(f"{name} is not there")


def test_a_damaged_page_in_memory_is_read_from_another_member(clusters: Clusters, children: Children) -> None:
    """Guards invariant 7: a page that is damaged where it is asked for first is passed over, alone and in a run."""
    cluster = clusters(2, memory="16MiB")
    name = fresh("flipped")
    writer = children.session(cluster, name)
    writer.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB)")
    writer.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " INSERT INTO t SELECT i, randomblob(2000) FROM n"
    )
    primary = cluster.members(name)[0]

    def flushed() -> bool:
        _, lsn, at = group_at(cluster, name, primary)
        return at == lsn

    eventually("all of it is on the primary's disk", flushed)
    chance = random.Random(int(os.environ.get("SYSTEM_SEED", "1")))
    group, _, upto = group_at(cluster, name, primary)
    for prefetch in ["on", "off"] * (FLIPS // 2):
        flip = damage.in_arena(cluster.arena(primary), group, upto, chance)
        assert flip is not None
        reader = children.session(cluster, name, DSPM_CACHE_PREFETCH=prefetch)
        assert reader.one("PRAGMA integrity_check") == "ok", flip.what
        assert reader.one("SELECT sum(length(pad)) FROM t") == 300 * 2000
        flip.undo()
        reader.kill()
