"""A member joins although pages are damaged, its directory was lost, or the writers are faster than its copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from .child import Children, Session
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters
from .damage import base_pages, entry, flip_base, flip_frame, frames
from .test_back_pressure import metric
from .test_scrub import check, fill, node_status, resting

MIB = 1 << 20


def lose(cluster: Cluster, node: str) -> None:
    """The node ends, and its directory is deleted. What lies in its arena is of a store that nobody is any more."""
    cluster.kill(cluster.pid(node))
    shutil.rmtree(next(Path(n["data_dir"]) for n in cluster.info["nodes"] if n["name"] == node))
    assert cluster.arena(node).exists()


def is_dropped(cluster: Cluster, name: str, node: str) -> bool:
    return node not in cluster.members(name)[1]


def test_records_with_a_damaged_page_are_repaired_before_they_are_sent(clusters: Clusters, children: Children) -> None:
    """Guards a member that comes back: what it lacks was sent to it as it was, and refused, until a scrub came by."""
    cluster = clusters(2, scrub__rate="0", history="10m")
    name = fresh("resent")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, content BLOB)")
    primary, (backup,) = cluster.members(name)
    lsn = cluster.dataset(name)["lsn"]
    cluster.kill(cluster.pid(backup))
    eventually("the dead backup is dropped", lambda: is_dropped(cluster, name, backup))
    for i in range(10):
        db.sql("INSERT INTO t VALUES (?, randomblob(9000))", i)
    eventually("the log has all", lambda: cluster.dataset(name)["flushed_lsn"] == cluster.dataset(name)["lsn"])
    missed = [f for f in frames(cluster, primary, entry(cluster, name).dataset).values() if f.lsn > lsn]
    assert len(missed) > 20
    for frame in missed[1::5]:
        flip_frame(cluster, primary, frame)
    cluster.up()
    cluster.wait_whole(name)
    assert node_status(cluster, primary)["repaired"] >= len(missed[1::5])
    assert node_status(cluster, primary)["checksum_errors"] >= len(missed[1::5])
    cluster.kill(cluster.pid(primary))
    eventually("the other one serves", lambda: cluster.dataset(name)["primary"] == backup)
    reader = children.session(cluster, name)
    assert reader.sql("SELECT count(*), sum(length(content)) FROM t") == [[10, 90000]]
    assert reader.one("PRAGMA integrity_check") == "ok"


def test_a_page_that_the_primary_lost_is_copied_from_another_member(clusters: Clusters, children: Children) -> None:
    """Guards the copy: one damaged page at the primary does not begin all of it anew."""
    cluster = clusters(3, copies=3, memory="16MiB", scrub__rate="0")
    name, _ = fill(cluster, children)
    dataset = entry(cluster, name).dataset
    primary, (backup, lost) = cluster.members(name)
    lose(cluster, lost)
    eventually("the dead backup is dropped", lambda: is_dropped(cluster, name, lost))
    pages = resting(cluster, primary, dataset)
    damaged = pages[len(pages) * 3 // 4 :: 100]
    assert len(damaged) > 3
    for page in damaged:
        flip_base(cluster, primary, dataset, page)
    cluster.up()
    eventually("it is whole", lambda: lost in cluster.members(name)[1])
    size = len(base_pages(cluster, backup, dataset))
    assert size // 2 < metric(cluster, "dspm_pages_copied", lost) < size * 3 // 2
    for node in (primary, backup):
        cluster.kill(cluster.pid(node))
        eventually("another one serves", lambda n=node: cluster.dataset(name)["primary"] != n)  # type: ignore[misc]
    assert cluster.members(name)[0] == lost
    check(cluster, children, name)


def write_until_whole(cluster: Cluster, db: Session, node: str, name: str) -> None:
    def is_whole() -> bool:
        for _ in range(200):
            db.sql("UPDATE t SET a = a + 1, b = randomblob(20000) WHERE id = 1")
        return node in cluster.members(name)[1]

    eventually("it is whole", is_whole, seconds=90, pause=0)


def test_a_copy_that_is_slower_than_the_writers_ends(clusters: Clusters, children: Children) -> None:
    """Guards a busy group: what a copy pins is given up long before it ends, and it goes on with what is newer."""
    cluster = clusters(2, memory="64MiB", join_rate="1MiB", history_max="1MiB")
    name = fresh("busy")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b BLOB)")
    for _ in range(8):
        db.sql("INSERT INTO t(a, b) VALUES (0, randomblob(1000000))")
    _, (backup,) = cluster.members(name)
    lose(cluster, backup)
    eventually("the dead backup is dropped", lambda: is_dropped(cluster, name, backup))
    cluster.up()
    begun = db.one("SELECT a FROM t WHERE id = 1")
    write_until_whole(cluster, db, backup, name)
    written = db.one("SELECT a FROM t WHERE id = 1")
    assert (written - begun) * 20000 > 4 * MIB, "the copy would have had to keep more than it may"
    pages = db.one("PRAGMA page_count")
    assert metric(cluster, "dspm_pages_copied", backup) < pages * 3 // 2, "it was begun once"
    cluster.kill(cluster.pid(cluster.members(name)[0]))
    eventually("the other one serves", lambda: cluster.dataset(name)["primary"] == backup)
    reader = children.session(cluster, name)
    assert reader.sql("SELECT count(*), max(a), sum(length(b)) FROM t") == [[8, written, 7_020_000]]
    assert reader.one("PRAGMA integrity_check") == "ok"
