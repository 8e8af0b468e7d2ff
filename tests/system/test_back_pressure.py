"""Limits of a node's memory and disk: writers wait, nobody is told of anything else, and nothing is lost."""

from __future__ import annotations

import contextlib
import filecmp
import os
import resource
import shutil
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .child import Children, Session, SqlError, result
from .cluster import BIN, Cluster, alive, clean_environment, eventually, fresh
from .conftest import Clusters, seconds

KIB = 1024
IOERR, FULL, BUSY_SNAPSHOT = 10, 13, 517


def metric(cluster: Cluster, name: str, of: str | None = None) -> int:
    """A figure of the nodes, summed, or of one of them."""
    total = 0.0
    for node in (n for n in cluster.info["nodes"] if of in (None, n["name"])):
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


def old_snapshot(cluster: Cluster, children: Children, size: int, rows: int) -> tuple[str, Session, int]:
    """A table with rows of that size; a session with a snapshot of it and little cache, and what it read there."""
    name = make_table(cluster, children)
    load(cluster, children, name, 0.5, 1, size, rows)
    reader = children.session(cluster, name, DSPM_CACHE_SIZE="1MiB")
    reader.sql("BEGIN")
    return name, reader, reader.one("SELECT count(*) FROM sqlite_schema")


def test_a_stuck_reader_stops_nobody(clusters: Clusters, children: Children) -> None:
    """Guards `history_max`: writers go on over an old snapshot, whose reader is told that it is too old."""
    small = clusters(2, memory="32MiB", history_max="2MiB")
    name, reader, before = old_snapshot(small, children, 200 * KIB, 8)
    assert load(small, children, name, seconds(3), 2, 200 * KIB, 8)[0] * 200 * KIB > 8 << 20
    with pytest.raises(SqlError) as caught:
        reader.sql("SELECT sum(length(hex(content))) FROM load")
    assert caught.value.code == BUSY_SNAPSHOT, str(caught.value)
    reader.sql("ROLLBACK")
    assert reader.one("SELECT count(*) FROM sqlite_schema") == before
    assert reader.one("SELECT count(*) FROM load WHERE length(hex(content)) = ?", 400 * KIB) == 16
    small.end()


def test_a_patient_reader_keeps_its_snapshot(clusters: Clusters, children: Children) -> None:
    """Guards what is below the limit: an old snapshot that pins little is read to its end."""
    small = clusters(2, memory="64MiB", history_max="32MiB")
    name, reader, _ = old_snapshot(small, children, 50 * KIB, 4)
    other = children.session(small, name)
    before = other.sql("SELECT writer, slot, n, hex(content) FROM load ORDER BY 1, 2")
    for n in range(100):
        other.sql("UPDATE load SET n = -1, content = randomblob(?) WHERE slot = ?", 50 * KIB, n % 4)
    assert reader.sql("SELECT writer, slot, n, hex(content) FROM load ORDER BY 1, 2") == before
    reader.sql("COMMIT")
    assert reader.one("SELECT max(n) FROM load") == -1
    small.end()


@contextlib.contextmanager
def file_system(at: Path, size: str) -> Iterator[None]:
    """A small one of its own, at an empty directory."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system needs root: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of 96 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    with file_system(at, "96m"):
        yield at


def fill(at: Path) -> Path:
    """Takes all room."""
    filler = at / "filler"
    with filler.open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(bytes(1 << 16)):
            pass
    return filler


def commit_until_full(cluster: Cluster, children: Children, disk: Path, node: str) -> None:
    """Takes all room of a disk: commits wait, then fail with the node and the reason; nothing acknowledged is lost, and
    all goes on when there is room again."""
    name = make_table(cluster, children)
    db = children.session(cluster, name, DSPM_COMMIT_TIMEOUT="1500ms")
    insert = "INSERT INTO load VALUES (0, ?1, ?1, randomblob(100000))"
    db.sql(insert, 0)
    filler = fill(disk)
    told = 1
    with pytest.raises(SqlError) as caught:
        for n in range(1, 30):
            db.sql(insert, n)
            told = n + 1
    assert caught.value.primary == FULL, str(caught.value)
    assert f"node {node}" in caught.value.reason and "disk" in caught.value.reason, caught.value.reason
    assert db.one("SELECT count(*) FROM load") == told
    filler.unlink()
    db.sql("PRAGMA busy_timeout = 30000")
    eventually("commits go on", lambda: succeeds(db, insert, told))
    assert children.session(cluster, name).sql("SELECT count(*), max(n) FROM load") == [[told + 1, told]]


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_full_disk_is_waited_for(small_disk: Path, children: Children, durability: str) -> None:
    """Guards ENOSPC, on all members at the same time."""
    cluster = Cluster(small_disk / "c", 2, {"memory": "16MiB", "durability": durability})
    try:
        cluster.up()
        before = cluster.pids()
        commit_until_full(cluster, children, small_disk, "n")
        assert cluster.pids() == before and all(alive(pid) for pid in before)
        assert metric(cluster, "dspm_alarms") == 0
    finally:
        children.end()
        cluster.end()


def succeeds(db: Session, statement: str, *arguments: object) -> bool:
    """True if it does now."""
    try:
        db.sql(statement, *arguments)
    except SqlError:
        return False
    return True


def test_readers_do_not_wait_for_room(small_disk: Path, children: Children) -> None:
    """Guards the readers of a process whose commit waits until it is told FULL."""
    cluster = Cluster(small_disk / "c", 2, {"memory": "16MiB"})
    try:
        cluster.up()
        name = make_table(cluster, children)
        fill(small_disk)
        pipe = subprocess.PIPE
        told = result(
            children.start(cluster, "beside", name, env={"DSPM_COMMIT_TIMEOUT": "2s"}, stdout=pipe, stderr=pipe)
        )
        assert told["refusal"] & 0xFF == FULL, told
        assert told["reads"] > 20, told
        rows = children.session(cluster, name).one("SELECT count(*) FROM load")
        assert rows == told["acknowledged"]
    finally:
        children.end()
        cluster.end()


@pytest.mark.parametrize("durability", ["memory", "disk"])
@pytest.mark.parametrize("which", ["n1", "n2"])
def test_one_member_has_no_disk(tmp_path: Path, children: Children, which: str, durability: str) -> None:
    """Guards the room that is kept for settles: what the others took is brought to the member once, and from then on it
    is asked first, so a writer is soon told FULL, and not that the outcome is unknown."""
    cluster = Cluster(tmp_path / "c", 2, {"memory": "16MiB", "durability": durability})
    try:
        cluster.up()
        at = next(Path(n["data_dir"]) for n in cluster.info["nodes"] if n["name"] == which)
        cluster.down()
        files = at.rename(tmp_path / "files")
        at.mkdir()
        with file_system(at, "48m"):
            shutil.copytree(files, at, dirs_exist_ok=True)
            try:
                cluster.up()
                commit_until_full(cluster, children, at, f"{which} ")
            finally:
                children.end()
                cluster.end()
    finally:
        cluster.end()


def test_no_descriptor_is_left(clusters: Clusters, children: Children) -> None:
    """Guards RLIMIT_NOFILE: who is connected goes on as long as the log needs no further file, who comes is told why it
    cannot, and can when some are free."""
    cluster = clusters(2)
    name = make_table(cluster, children)
    db = children.session(cluster, name, DSPM_COMMIT_TIMEOUT="2s")
    insert = "INSERT INTO load VALUES (0, ?1, ?1, x'01')"
    db.sql(insert, 0)
    nodes = [cluster.pid(node) for node in cluster.nodes]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in nodes}
    for pid in nodes:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), limits[pid][1]))
    late = children.session(cluster, DSPM_COMMIT_TIMEOUT="1s")
    with pytest.raises(SqlError) as caught:
        late.open(name)
        late.sql("SELECT count(*) FROM load")
    assert any(which in caught.value.reason for which in ("node n", "127.0.0.1")), caught.value.reason
    acknowledged = 1
    try:
        for n in range(1, 20):
            db.sql(insert, n)
            acknowledged += 1
    except SqlError as e:
        assert e.primary in (FULL, IOERR), e
        assert "node n" in e.reason, e
        doubtful = {acknowledged, acknowledged + 1}
    else:
        doubtful = {acknowledged}
    for pid in nodes:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])
    eventually("new connections are taken", lambda: succeeds(reopened(late, name), "SELECT 1 FROM load"))
    assert late.one("SELECT count(*) FROM load") in doubtful
    eventually("commits go on", lambda: succeeds(db, "INSERT INTO load VALUES (1, 1, 1, x'01')"))
    assert all(alive(pid) for pid in nodes)


def reopened(session: Session, name: str) -> Session:
    """Opens the database again, if it can."""
    with contextlib.suppress(SqlError):
        session.open(name)
    return session


def carry(cluster: Cluster, at: Path, mib: int) -> None:
    """A database of that size goes in and comes out again, the same bytes."""
    source, back, name = at / "source.db", at / "back.db", fresh("large")
    with contextlib.closing(sqlite3.connect(source)) as db, db:
        db.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, content BLOB)")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((i, os.urandom(1 << 20)) for i in range(mib)))
    env = {**clean_environment(), "DSPM_CONFIG": cluster.config}
    for arguments in (["import", str(source), name], ["export", name, str(back)]):
        done = subprocess.run([str(BIN), *arguments], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
    assert filecmp.cmp(source, back, shallow=False)
    assert metric(cluster, "dspm_alarms") == 0


def test_a_database_larger_than_the_memory(clusters: Clusters, children: Children, tmp_path: Path) -> None:
    """Guards what goes to disk and out of memory: 96 MiB through nodes of 24 MiB."""
    small = clusters(2, memory="24MiB")
    carry(small, tmp_path, 96)
    small.end()


@pytest.mark.slow
@pytest.mark.seconds(1800)
def test_a_database_much_larger_than_the_memory(clusters: Clusters, children: Children, tmp_path: Path) -> None:
    """Guards the same at size: 2 GiB through nodes of 256 MiB."""
    small = clusters(2, memory="256MiB")
    carry(small, tmp_path, 2048)
    small.end()


@pytest.mark.slow
@pytest.mark.seconds(1200)
def test_a_steady_load(clusters: Clusters, children: Children) -> None:
    """Guards against a slow death: minutes of small and large commits over a small memory, nobody fails or starves."""
    small = clusters(2, memory="32MiB")
    for size, rows in [(3 * KIB, 300), (300 * KIB, 20)]:
        counts = load(small, children, make_table(small, children), seconds(60), 3, size, rows)
        assert min(counts) > 0.3 * sum(counts) / len(counts), counts
    assert metric(small, "dspm_alarms") == 0
    small.end()
