"""`dspm fsck` on clusters as they are left behind: stopped, killed, torn, running, foreign, garbage.

Fault model: processes end by SIGTERM or SIGKILL at any instruction; a power cut leaves a torn batch at the log's end;
files hold any bytes. A second reader that was written from the documents alone must find nothing wrong with what the
store wrote.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Run
from system.cluster import Cluster, alive, eventually

from dspm.formats.datadir import DataDir
from dspm.formats.disk import Disk
from dspm.formats.fsck import check
from dspm.formats.report import Report

Clusters = Callable[..., Cluster]

WRITER = """
import random, sys, dspm
seed, name = int(sys.argv[1]), sys.argv[2]
choose = random.Random(seed)
db = dspm.connect(name)
db.set_busy_timeout(10000)
db.execute("CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v BLOB)")
print("writing", flush=True)
for i in range(int(sys.argv[3])):
    with db:
        db.execute("INSERT INTO t(v) VALUES (randomblob(?))", (choose.randrange(9000),))
        if choose.random() < 0.3:
            db.execute("DELETE FROM t WHERE k % 9 = ?", (choose.randrange(9),))
    if i % 250 == 249:
        db.execute("VACUUM")
print("done", flush=True)
"""


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    made: list[Cluster] = []

    def make(nodes: int = 2, **settings: str) -> Cluster:
        made.append(Cluster(tmp_path / f"c{len(made)}", nodes, {"memory": "16MiB", **settings}))
        made[-1].up()
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


def start(cluster: Cluster, name: str, transactions: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(secrets.randbits(31)), name, str(transactions)]
    env = {**os.environ, "DSPM_CONFIG": cluster.config, "DSPM_LOG": "off"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def writer(cluster: Cluster, name: str, transactions: int) -> subprocess.Popen[str]:
    """A process that writes; returns when it has begun."""
    process = start(cluster, name, transactions)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def write(cluster: Cluster, name: str, transactions: int) -> None:
    assert start(cluster, name, transactions).communicate(timeout=90)[0] == "writing\ndone\n"


def data_dirs(cluster: Cluster) -> list[Path]:
    return [Path(n["data_dir"]) for n in cluster.info["nodes"]]


def check_all(cluster: Cluster) -> list[Report]:
    reports = [check(Path(n["data_dir"]), Path(n["arena_file"])) for n in cluster.info["nodes"]]
    for report in reports:
        assert report.sound, [str(p) for p in report.problems]
    return reports


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_stopped_cluster_is_sound(clusters: Clusters, dspm: Run, durability: str) -> None:
    cluster = clusters(3, durability=durability)
    write(cluster, "a.db", 700)
    write(cluster, "b.db", 40)
    cluster.down()
    done = dspm("fsck", "--dir", cluster.directory, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["sound"] and [n["data_dir"] for n in found["nodes"]] == [str(d) for d in data_dirs(cluster)]
    assert all(n["problems"] == [] and n["notes"] == [] for n in found["nodes"])
    for what in ("log batches", "log entries", "arena records", "arena pages", "pages compared", "base pages"):
        assert sum(n["counts"].get(what, 0) for n in found["nodes"]) > 0, what
    one = dspm("fsck", data_dirs(cluster)[0])
    assert one.returncode == 0 and one.stdout.startswith(f"{data_dirs(cluster)[0]}: sound; ")


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_what_killed_nodes_leave_is_sound(clusters: Clusters, durability: str) -> None:
    cluster = clusters(3, durability=durability)
    for round_ in range(3):
        writers = [writer(cluster, f"k{i}.db", 1_000_000) for i in range(2)]
        time.sleep(0.5 + 0.3 * round_)
        for n in cluster.info["nodes"]:
            os.kill(n["pid"], signal.SIGKILL)
        eventually("the killed nodes are gone", lambda: not any(alive(n["pid"]) for n in cluster.info["nodes"]))
        for w in writers:
            w.kill()
            w.wait()
        reports = check_all(cluster)
        assert sum(r.counts["log entries"] for r in reports) > 0
        notes = [n.what for r in reports for n in r.notes]
        assert all("torn tail" in n or "unfinished checkpoint" in n for n in notes), notes
        cluster.up()


def test_memory_that_was_lost_and_rebuilt_from_the_log_is_sound(clusters: Clusters) -> None:
    cluster = clusters(2, durability="disk")
    write(cluster, "r.db", 400)
    cluster.down()
    cluster.arena("n1").unlink()
    report = check(Path(cluster.info["nodes"][0]["data_dir"]), None)
    assert report.sound and ["no arena was found" in n.what for n in report.notes] == [True]
    cluster.up()
    write(cluster, "r.db", 20)
    cluster.down()
    reports = check_all(cluster)
    assert all(r.counts["pages compared"] > 0 and not r.notes for r in reports)


def test_a_removed_database_leaves_sound_files(clusters: Clusters) -> None:
    cluster = clusters(2)
    write(cluster, "gone.db", 300)
    write(cluster, "kept.db", 30)
    assert cluster.run("rm", "gone.db").returncode == 0
    write(cluster, "kept.db", 30)
    cluster.down()
    check_all(cluster)


def test_a_torn_tail_is_a_note_and_recovery_cuts_it_off(clusters: Clusters, dspm: Run) -> None:
    """A power cut: the memory is gone, and of the last batch only its front reached the disk."""
    cluster = clusters(2, durability="disk")
    write(cluster, "torn.db", 60)
    cluster.down()
    data, arena = data_dirs(cluster)[0], cluster.arena("n1")
    disk = Disk(DataDir(data), Report())
    last = disk.log.last
    assert last is not None
    with open(last.segment.path, "r+b") as f:
        f.seek(last.at + (last.end - last.at) // 2)
        f.write(bytes(last.end - f.tell()))
    with_memory = check(data, arena)
    assert [p.file for p in with_memory.problems] == [str(last.segment.path)], with_memory.problems
    assert "flushed" in with_memory.problems[0].expected
    arena.unlink()
    done = dspm("fsck", data)
    assert done.returncode == 0, done.stdout
    assert f"note: {last.segment.path}: byte " in done.stdout and f"torn tail: batch {last.number} " in done.stdout
    cluster.up()
    write(cluster, "torn.db", 10)
    cluster.down()
    assert not [n for r in check_all(cluster) for n in r.notes]


def test_a_batch_lost_in_front_of_another_is_damage(clusters: Clusters, dspm: Run) -> None:
    cluster = clusters(2, durability="disk")
    write(cluster, "lost.db", 60)
    cluster.down()
    data = data_dirs(cluster)[0]
    report = Report()
    batches = list(Disk(DataDir(data), report).log.batches(report))
    victim = batches[-2]
    with open(victim.segment.path, "r+b") as f:
        f.seek(victim.at)
        f.write(bytes(victim.end - victim.at))
    done = dspm("fsck", data, "--json")
    assert done.returncode == 4
    [problem] = json.loads(done.stdout)["nodes"][0]["problems"]
    assert (problem["file"], problem["offset"]) == (str(victim.segment.path), victim.at)
    assert f"batch {victim.number}, though batch {victim.number + 1} at byte {batches[-1].at}" in problem["what"]


def test_a_running_node_is_left_alone(clusters: Clusters, dspm: Run) -> None:
    cluster = clusters(2)
    for arguments in (("fsck", data_dirs(cluster)[0]), ("fsck", "--dir", cluster.directory)):
        done = dspm(*arguments)
        assert done.returncode == 3 and "is in use" in done.stderr and "stop it first" in done.stderr
    assert dspm("log", "dump", data_dirs(cluster)[0]).returncode == 3
    write(cluster, "still.db", 5)


def test_a_node_does_not_start_while_its_files_are_checked(clusters: Clusters) -> None:
    from dspm.formats import datadir

    cluster = clusters(2)
    cluster.down()
    held = datadir.stopped(DataDir(data_dirs(cluster)[0]), cluster.arena("n1"))
    with held, pytest.raises(AssertionError, match="in use"):
        cluster.up()
    cluster.up()


def test_what_is_not_a_node_is_a_usage_error(dspm: Run, tmp_path: Path) -> None:
    for arguments in (
        ("fsck",),
        ("fsck", tmp_path),
        ("fsck", tmp_path / "nothing"),
        ("fsck", "--dir", tmp_path),
        ("fsck", tmp_path, "--dir", tmp_path),
        ("log", "dump", tmp_path),
    ):
        done = dspm(*arguments)
        assert done.returncode == 2 and "hint: " in done.stderr, arguments


def test_another_nodes_arena_is_named(clusters: Clusters) -> None:
    cluster = clusters(2)
    cluster.down()
    report = check(data_dirs(cluster)[0], cluster.arena("n2"))
    assert [p.what for p in report.problems] == ["store id of the arena"]


def test_garbage_never_ends_the_check(clusters: Clusters, tmp_path: Path) -> None:
    """Whole ranges of files overwritten, and files cut short: always a report, never a traceback."""
    cluster = clusters(2, durability="disk")
    write(cluster, "g.db", 500)
    cluster.down()
    data, arena = tmp_path / "data", tmp_path / "arena"
    seed = secrets.randbits(32)
    choose = random.Random(seed)
    silent = 0
    for _ in range(60):
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(data_dirs(cluster)[0], data)
        shutil.copyfile(cluster.arena("n1"), arena)
        file = choose.choice([arena, *(p for p in data.rglob("*") if p.is_file() and p.name != "lock")])
        size = file.stat().st_size
        at = choose.choice([0, choose.randrange(min(size, 8192)), choose.randrange(size)])
        with open(file, "r+b") as f:
            if choose.random() < 0.3:
                f.truncate(at)
            else:
                f.seek(at)
                f.write(choose.randbytes(min(choose.choice([8, 64, 512, 5000]), size - at)))
        try:
            silent += check(data, arena).sound
        except Exception as e:
            raise AssertionError(f"{file.name} at {at}, seed {seed}") from e
    assert silent < 60
