"""The registry's record and what nodes hold drift apart: nodes that were away, memories lost unseen, an old state."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .child import Children
from .cluster import Cluster, clean_environment, eventually, fresh
from .conftest import Clusters
from .ledger import Ledger

ROWS = 200


def write(cluster: Cluster, children: Children, name: str) -> None:
    """A database of about a MiB."""
    session = children.session(cluster, name)
    session.sql("CREATE TABLE t(a)")
    for _ in range(4):
        session.sql("BEGIN")
        for _ in range(ROWS // 4):
            session.sql("INSERT INTO t VALUES (randomblob(4000))")
        session.sql("COMMIT")
    session.kill()


def used(cluster: Cluster, node: str) -> int:
    """Frames in use at a node."""
    return next(int(n["frames_used"]) for n in cluster.status()["nodes"] if n["name"] == node)


def base_files(cluster: Cluster, node: str) -> set[str]:
    """Names of the node's base files and sidecars."""
    return {p.name for p in (cluster.directory / "nodes" / node / "base").iterdir()}


def commands(pid: int) -> list[str]:
    """How a process was started."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [part.decode() for part in raw.split(b"\0")[:-1]]


@contextlib.contextmanager
def serving_alone(command: list[str]) -> Iterator[None]:
    """A daemon that `dspm up` does not know, from when it serves; it ends with the block, however that ends."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment()) as p:
        try:
            assert p.stdout is not None and p.stdout.readline(), "it ended before it served"
            yield
        finally:
            p.kill()


def run_unseen(command: list[str]) -> None:
    """Starts a node until it serves, and kills it."""
    with serving_alone(command):
        pass


@pytest.mark.parametrize("lose", ["nothing", "memory"])
def test_removed_while_a_node_was_away(clusters: Clusters, children: Children, lose: str) -> None:
    """Frames, base files and log entries of a removed dataset go when its node is back, from memory or from its log."""
    cluster = clusters(2, durability="disk", memory="16MiB")
    kept, gone = fresh("kept"), fresh("gone")
    write(cluster, children, kept)
    before = used(cluster, "n2")
    write(cluster, children, gone)
    assert used(cluster, "n2") > before + ROWS
    # Much more than a log segment, so that both have base files.
    churn = children.session(cluster, gone)
    for _ in range(12):
        churn.sql("UPDATE t SET a = randomblob(4000)")
    churn.kill()
    eventually("base files are there", lambda: len(base_files(cluster, "n2")) >= 2)
    cluster.kill(cluster.pid("n2"))
    if lose == "memory":
        cluster.arena("n2").unlink()
    assert cluster.run("rm", gone).returncode == 0
    eventually("n1 has freed it", lambda: used(cluster, "n1") <= before + ROWS // 2)
    cluster.kill(cluster.registry)  # what is owed is in its state, not in its memory
    cluster.up()
    eventually("n2 has freed it", lambda: used(cluster, "n2") <= before + ROWS // 2)
    cluster.wait_whole(kept)
    # Not found again, also by a start that has nothing but the log.
    cluster.kill(cluster.pid("n2"))
    cluster.arena("n2").unlink()
    cluster.up()
    cluster.wait_whole(kept)
    assert used(cluster, "n2") <= before + ROWS // 2
    datasets = {p.split(".")[0] for p in base_files(cluster, "n2")}
    assert len(datasets) <= 1, f"base files of {datasets}"
    assert children.session(cluster, kept).one("SELECT count(*) FROM t") == ROWS
    cluster.down()
    checked = cluster.run("fsck", cluster.directory / "nodes" / "n2")
    assert checked.returncode == 0, checked.stdout


def test_a_state_restored_from_a_backup_frees_nothing(clusters: Clusters, children: Children) -> None:
    """A dataset that the registry does not know is not a removed one."""
    cluster = clusters(2, memory="32MiB")
    names = [fresh("old") for _ in range(2)]
    for name in names:  # a set for each primary, so that the view stays
        write(cluster, children, name)
    state = cluster.directory / "registry" / "registry.db"
    cluster.down()
    shutil.copy(state, state.with_suffix(".backup"))
    cluster.up()
    young = fresh("young")
    write(cluster, children, young)
    held = {n: used(cluster, n) for n in cluster.nodes}
    cluster.down()
    newest = state.with_suffix(".newest")
    state.rename(newest)
    shutil.copy(state.with_suffix(".backup"), state)
    cluster.up()
    eventually("the old state is told", lambda: {d["name"] for d in cluster.status()["datasets"]} == set(names))
    assert cluster.run("rm", names[0]).returncode == 0
    eventually("the removed one is free", lambda: all(used(cluster, n) <= held[n] - ROWS // 2 for n in cluster.nodes))
    assert all(used(cluster, n) >= ROWS * 2 for n in cluster.nodes), "what is only not known was freed"
    cluster.down()
    newest.rename(state)
    cluster.up()
    cluster.wait_whole(young)
    assert children.session(cluster, young).one("SELECT count(*) FROM t") == ROWS


def test_a_state_that_caught_up_in_number_is_noticed(clusters: Clusters, children: Children) -> None:
    """An old state that decided something before it heard the nodes has a version that they know with other content."""
    cluster = clusters(2, memory="32MiB")
    name, young = fresh("old"), fresh("young")
    write(cluster, children, name)
    state = cluster.directory / "registry" / "registry.db"
    cluster.down()
    backup, newest = state.read_bytes(), state.with_suffix(".newest")
    cluster.up()
    children.session(cluster, young).sql("CREATE TABLE t(a)")  # its set has the other primary: a newer view
    command = commands(cluster.registry)
    cluster.kill(cluster.registry)
    state.rename(newest)
    state.write_bytes(backup)
    with contextlib.closing(sqlite3.connect(state)) as db:
        db.execute("INSERT INTO nodes VALUES('n9', '127.0.0.1:9', 'n9@local')")
        db.execute("UPDATE cluster SET version = version + 1, view_version = view_version + 1")
        db.commit()
    with serving_alone(command):
        eventually("it is known to be old", lambda: "another version" in cluster.status()["registry_trouble"])
        waits = "What nodes know is not taken over: this state went on by itself"
        eventually("it says why", lambda: waits in cluster.status()["registry_trouble"])
        for asked in (["rm", name], ["node", "drain", "n1"], ["switchover", name]):
            refused = cluster.run(*asked)
            assert refused.returncode == 3 and "older than what nodes know" in refused.stderr, refused.stderr
    newest.replace(state)
    cluster.up()
    for n in (name, young):
        cluster.wait_whole(n)
    eventually("the trouble is over", lambda: cluster.status()["registry_trouble"] == "")


def put_back(cluster: Cluster, backup: bytes) -> None:
    """Somebody puts an old state in the place of the newest."""
    cluster.kill(cluster.registry)
    state = cluster.directory / "registry" / "registry.db"
    state.write_bytes(backup)
    state.with_name("registry.db-journal").unlink(missing_ok=True)


def test_an_old_state_takes_over_what_nodes_know(clusters: Clusters, children: Children) -> None:
    """A member was replaced and a database created since the backup; the registry learns both from the nodes, and goes
    on: the next failure is dealt with."""
    cluster = clusters(3, memory="32MiB")
    ledger, young = Ledger(cluster, children, fresh("ledger")), fresh("young")
    writer = ledger.writer()
    writer.wait(20)
    backup = (cluster.directory / "registry" / "registry.db").read_bytes()
    _, backups = cluster.members(ledger.name)
    cluster.kill(cluster.pid(backups[0]))
    eventually("another one is there", lambda: cluster.members(ledger.name)[1] not in ([], backups))
    generation = cluster.dataset(ledger.name)["generation"]
    write(cluster, children, young)
    put_back(cluster, backup)
    cluster.up()
    eventually("the newest state is known", lambda: cluster.status()["registry_trouble"] == "")
    eventually(
        "the set goes on far above", lambda: cluster.dataset(ledger.name)["generation"] >= generation + (1 << 20)
    )
    for name in (ledger.name, young):
        cluster.wait_whole(name)
    assert children.session(cluster, young).one("SELECT count(*) FROM t") == ROWS
    writer.wait(20)
    cluster.kill(cluster.pid(cluster.members(ledger.name)[0]))
    writer.wait(20)
    writer.kill()
    ledger.verify()


def test_a_node_that_cannot_write_its_catalog_is_done_without(clusters: Clusters, children: Children) -> None:
    """It answers heartbeats and cannot take a view over: its set is activated without it, and it is shown."""
    cluster = clusters(3, copies=3, min_copies=1)
    name = fresh("behind")
    write(cluster, children, name)
    primary, (behind, other) = cluster.members(name)
    blocker = cluster.directory / "nodes" / behind / "catalog.next"  # where it writes the next one
    blocker.mkdir()
    (blocker / "x").touch()
    cluster.kill(cluster.pid(primary))
    eventually("the set is activated without it", lambda: cluster.members(name) == (other, []))
    session = children.session(cluster, name)
    session.sql("INSERT INTO t VALUES (NULL)")
    node = next(n for n in cluster.status()["nodes"] if n["name"] == behind)
    assert node["state"] == "behind" and "cannot take over the newest view" in node["why"], node
    (blocker / "x").unlink()
    blocker.rmdir()
    cluster.up()
    cluster.wait_whole(name)
    cluster.kill(cluster.pid(other))
    assert session.one("SELECT count(*) FROM t") == ROWS + 1


def test_a_memory_lost_and_a_restart_unseen(clusters: Clusters, children: Children) -> None:
    """Durability `disk`: a node that lost its memory, and was started again, while no registry ran, goes on."""
    cluster = clusters(2, durability="disk")
    ledger = Ledger(cluster, children, fresh("ledger"))
    writer = ledger.writer()
    writer.wait(20)
    cluster.kill(cluster.registry)
    command = commands(cluster.pid("n2"))
    for lost in (True, False, True, False):
        cluster.kill(cluster.pid("n2"))
        if lost:
            cluster.arena("n2").unlink()
        run_unseen(command)
    writer.kill()
    cluster.up()
    cluster.wait_whole(ledger.name)
    ledger.verify()


def test_a_member_that_lost_its_memory_joins_again(clusters: Clusters, children: Children) -> None:
    """Durability `memory`, lost, and the node started twice unseen: it is given all of it, and serves it alone then."""
    cluster = clusters(2)
    old, new = fresh("old"), fresh("new")
    write(cluster, children, old)
    command = commands(cluster.pid("n2"))
    cluster.kill(cluster.registry)
    for lost in (True, False):
        cluster.kill(cluster.pid("n2"))
        if lost:
            cluster.arena("n2").unlink()
        run_unseen(command)
    cluster.up()
    write(cluster, children, new)
    for name in (old, new):
        cluster.wait_whole(name)
    eventually("no set is degraded", lambda: not cluster.status()["degraded"])
    cluster.kill(cluster.pid("n1"))
    for name in (old, new):
        assert children.session(cluster, name).one("SELECT count(*) FROM t") == ROWS
