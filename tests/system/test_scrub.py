"""Bits that flip in a node's memory and on its disk are found, never served, and repaired from a good copy.

What is lost is named, and all the rest goes on.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from .child import Children, Session, SqlError
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters, rounds
from .damage import base_pages, entry, flip_base, flip_entry, flip_frame, frames, tear_base
from .ledger import Ledger
from .test_back_pressure import metric

ROWS = 5000
LOST, UNREACHABLE = 4, 3


@pytest.fixture(scope="module")
def duo(clusters: Clusters) -> Cluster:
    """Two nodes that hold all there is, with little memory: what rests is in base files. They scrub when asked."""
    return clusters(2, memory="16MiB", scrub__rate="0")


def fill(cluster: Cluster, children: Children) -> tuple[str, Session]:
    """A database several times as large as half of a node's memory, in base files for the most part."""
    name = fresh("scrub")
    db = children.session(cluster, name)
    db.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, content BLOB)")
    numbers = "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
    for first in range(0, ROWS, 250):
        insert = "INSERT INTO t SELECT i, zeroblob(3000) || printf('%08d', i) FROM n"
        db.sql(numbers + insert, first, first + 250)
    dataset = entry(cluster, name).dataset
    for node in cluster.nodes:
        eventually(f"{node} has a base file", lambda n=node: len(base_pages(cluster, n, dataset)) > 100)  # type: ignore[misc]
    return name, db


def check(cluster: Cluster, children: Children, name: str) -> None:
    """A new process reads everything, and it is right."""
    db = children.session(cluster, name)
    wrong = "SELECT count(*) FROM t WHERE content IS NOT zeroblob(3000) || printf('%08d', id)"
    assert db.sql(f"SELECT count(*), ({wrong}) FROM t") == [[ROWS, 0]]
    assert db.one("PRAGMA integrity_check") == "ok"


def scrub(cluster: Cluster, *what: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """What `dspm scrub` says of each node."""
    done = cluster.run("scrub", "--json", *what)
    assert done.returncode == status, f"exit {done.returncode}: {done.stdout} {done.stderr}"
    answer = json.loads(done.stdout)
    assert answer["sound"] == (status == 0)
    return {n["node"]: n for n in answer["nodes"]}


def node_status(cluster: Cluster, node: str) -> dict[str, Any]:
    return next(n for n in cluster.status()["nodes"] if n["name"] == node)


def resting(cluster: Cluster, node: str, dataset: int) -> list[int]:
    """Pages that the node has in its base file only."""
    in_memory = frames(cluster, node, dataset)
    return [p for p in base_pages(cluster, node, dataset) if p not in in_memory]


def test_flipped_bits_are_repaired_from_the_other_copy(duo: Cluster, children: Children) -> None:
    """Guards the whole: after `dspm scrub` one node's copies alone are enough."""
    name, db = fill(duo, children)
    db.sql("UPDATE t SET content = content WHERE id < 40")
    dataset = entry(duo, name).dataset
    primary, (backup,) = duo.members(name)
    before = node_status(duo, backup)
    in_memory = [f for p, f in sorted(frames(duo, backup, dataset).items()) if p > 1][:25]
    on_disk = resting(duo, backup, dataset)[10:200:8]
    assert len(in_memory) == 25 and len(on_disk) > 10
    for i, frame in enumerate(in_memory):
        flip_frame(duo, backup, frame, i * 100)
    for page in on_disk:
        flip_base(duo, backup, dataset, page)
    said = scrub(duo)
    flipped = len(in_memory) + len(on_disk)
    found = said[backup]
    assert found["bad"] >= flipped and found["repaired"] >= flipped, found
    assert found["waiting"] == found["lost_pages"] == 0
    assert found["pages"] > len(base_pages(duo, backup, dataset))
    assert said[primary]["bad"] == 0
    after = node_status(duo, backup)
    assert after["checksum_errors"] - before["checksum_errors"] >= flipped
    assert after["repaired"] - before["repaired"] >= flipped
    assert metric(duo, "dspm_repaired_copies", backup) == after["repaired"]
    assert metric(duo, "dspm_lost_pages") == 0
    assert scrub(duo)[backup]["bad"] == 0
    db.process.kill()
    duo.kill(duo.pid(primary))
    eventually("the other one serves", lambda: duo.dataset(name)["primary"] == backup)
    check(duo, children, name)


def test_the_same_page_on_both_nodes_is_lost_and_named(clusters: Clusters, children: Children) -> None:
    """Guards that damage of one page costs that page: it is named, the others are read, and commits go on."""
    cluster = clusters(2, memory="16MiB", scrub__rate="0", commit_timeout="3s")
    name, db = fill(cluster, children)
    dataset = entry(cluster, name).dataset
    both = set(resting(cluster, "n1", dataset)) & set(resting(cluster, "n2", dataset))
    page = sorted(both)[len(both) // 2]
    for node in cluster.nodes:
        flip_base(cluster, node, dataset, page)
    said = scrub(cluster, status=LOST)
    for node, other in (("n1", "n2"), ("n2", "n1")):
        (lost,) = said[node]["lost"]
        assert (lost["name"], lost["page"]) == (name, page) and lost["lsn"] > 0
        assert [a.split(":")[0] for a in lost["asked"]] == [other]
    assert cluster.dataset(name)["lost_pages"] == 1
    text = cluster.run("scrub")
    assert text.returncode == LOST and f"page {page} of {name} (commit " in text.stdout, text.stdout
    assert "LOST: " in cluster.run("status").stdout
    reader = children.session(cluster, name)
    with pytest.raises(SqlError) as failed:
        reader.sql("SELECT count(hex(content)) FROM t")
    assert f"page {page} of dataset {name}" in failed.value.reason, failed.value
    assert "n1" in failed.value.reason and "n2" in failed.value.reason
    good = 0
    for i in range(0, ROWS, 100):
        try:
            good += reader.sql("SELECT id, length(CAST(content AS BLOB)) FROM t WHERE id = ?", i) == [[i, 3008]]
        except SqlError as e:
            assert f"page {page} of dataset {name}" in e.reason
    assert good >= ROWS // 100 - 2
    db.sql("INSERT INTO t VALUES (?, ?)", ROWS, "commits go on")
    assert reader.one("SELECT content FROM t WHERE id = ?", ROWS) == "commits go on"


def test_a_torn_page_and_a_damaged_entry_on_both_nodes_are_named(clusters: Clusters, children: Children) -> None:
    """Guards what is left when nothing good is: whatever damaged a page, `dspm scrub` and every read of it name it."""
    cluster = clusters(2, memory="16MiB", scrub__rate="0", commit_timeout="3s")
    name, _ = fill(cluster, children)
    dataset = entry(cluster, name).dataset
    both = sorted(set(resting(cluster, "n1", dataset)) & set(resting(cluster, "n2", dataset)))
    torn, unnamed = both[len(both) // 3], both[len(both) * 2 // 3]
    for node in cluster.nodes:
        tear_base(cluster, node, dataset, torn)
        flip_entry(cluster, node, dataset, unnamed)
    said = scrub(cluster, status=LOST)
    for node, other in (("n1", "n2"), ("n2", "n1")):
        found = said[node]
        assert [(p["name"], p["page"]) for p in found["lost"]] == [(name, torn), (name, unnamed)], found
        assert found["lost_pages"] == 2 and found["waiting"] == 0
        assert all(p["lsn"] > 0 and [a.split(":")[0] for a in p["asked"]] == [other] for p in found["lost"])
    reader, texts = children.session(cluster, name), set()
    for i in range(ROWS):
        try:
            good = "SELECT content IS zeroblob(3000) || printf('%08d', id) FROM t WHERE id = ?"
            assert reader.one(good, i) == 1
        except SqlError as e:
            texts.add(e.reason)
    for page in (torn, unnamed):
        assert any(f"page {page} of dataset {name}" in t and "n1" in t and "n2" in t for t in texts), texts


def test_a_frame_lost_on_both_nodes_stops_neither_log_nor_checkpoints(clusters: Clusters, children: Children) -> None:
    """Guards the flusher: a page that only memory held is lost, and what came later is on disk all the same."""
    cluster = clusters(2, memory="16MiB", scrub__rate="0", flush_interval="5s", commit_timeout="3s")
    name, db = fill(cluster, children)
    dataset = entry(cluster, name).dataset
    db.sql("UPDATE t SET content = content WHERE id = 1234")
    both = [frames(cluster, node, dataset) for node in cluster.nodes]
    newest = max(f.lsn for f in both[0].values())
    page = next(p for p, f in both[0].items() if f.lsn == newest and p > 0 and both[1][p].lsn == newest)
    for node, held in zip(cluster.nodes, both, strict=True):
        flip_frame(cluster, node, held[page])
    assert {n["lost_pages"] for n in scrub(cluster, status=LOST).values()} == {1}
    for i in range(3):
        db.sql("INSERT INTO t VALUES (?, zeroblob(1000000))", ROWS + i)
    eventually("the log has all", lambda: cluster.dataset(name)["flushed_lsn"] == cluster.dataset(name)["lsn"])


def test_what_a_read_meets_is_healed_without_scrub(duo: Cluster, children: Children) -> None:
    """Guards the reader, who gets the right page at once, and the copy, which nobody else looks at."""
    name, _ = fill(duo, children)
    dataset = entry(duo, name).dataset
    primary, _ = duo.members(name)
    before = node_status(duo, primary)["repaired"]
    in_memory = [f for p, f in sorted(frames(duo, primary, dataset).items()) if p > 1][-20:]
    on_disk = resting(duo, primary, dataset)[20:100:4]
    for frame in in_memory:
        flip_frame(duo, primary, frame)
    for page in on_disk:
        flip_base(duo, primary, dataset, page)
    check(duo, children, name)
    flipped = len(in_memory) + len(on_disk)
    eventually("the copies are healed", lambda: node_status(duo, primary)["repaired"] - before >= flipped)
    assert scrub(duo)[primary]["bad"] == 0


def test_scrub_while_others_write(duo: Cluster, children: Children) -> None:
    """Guards commits and their order: damage comes and is repaired under load, and nothing acknowledged is missing."""
    ledger = Ledger(duo, children, fresh("ledger"))
    writers = [ledger.writer(i) for i in range(2)]
    for w in writers:
        w.wait(50)
    dataset = entry(duo, ledger.name).dataset
    _, (backup,) = duo.members(ledger.name)
    for _ in range(rounds(5)):
        for frame in list(frames(duo, backup, dataset).values())[:3]:
            flip_frame(duo, backup, frame)
        found = scrub(duo)[backup]
        assert found["waiting"] == 0
        for w in writers:
            w.wait(20)
    for w in writers:
        w.kill()
    assert ledger.errors == []
    ledger.verify()
    duo.kill(duo.pid(duo.members(ledger.name)[0]))
    eventually("the other one serves", lambda: duo.dataset(ledger.name)["primary"] == backup)
    ledger.verify()


def test_nodes_scrub_by_themselves(clusters: Clusters, children: Children) -> None:
    """Guards the schedule: nobody asks, nobody reads, and the copy is repaired."""
    cluster = clusters(2, memory="16MiB", scrub__interval="1s", scrub__rate="64MiB")
    name, _ = fill(cluster, children)
    dataset = entry(cluster, name).dataset
    _, (backup,) = cluster.members(name)
    frame = max(frames(cluster, backup, dataset).values(), key=lambda f: f.page)
    flip_frame(cluster, backup, frame)
    flip_base(cluster, backup, dataset, resting(cluster, backup, dataset)[5])
    eventually("both are repaired", lambda: node_status(cluster, backup)["repaired"] >= 2, seconds=60)
    assert metric(cluster, "dspm_scrubbed_bytes", backup) > 0


def test_one_node_or_one_dataset(duo: Cluster, children: Children) -> None:
    """Guards what is looked at: as much as was asked for."""
    name, _ = fill(duo, children)
    other, _ = fill(duo, children)
    whole = scrub(duo)
    assert set(whole) == {"n1", "n2"}
    assert set(scrub(duo, "n2")) == {"n2"}
    one = scrub(duo, name)
    assert set(one) == {"n1", "n2"}
    assert ROWS // 2 < one["n1"]["pages"] < whole["n1"]["pages"]
    dataset = entry(duo, other).dataset
    _, (backup,) = duo.members(other)
    flip_base(duo, backup, dataset, resting(duo, backup, dataset)[5])
    assert scrub(duo, name)[backup]["bad"] == 0
    assert scrub(duo, other)[backup]["repaired"] == 1
    unknown = duo.run("scrub", "no-such")
    assert unknown.returncode == 1 and "no-such" in unknown.stderr


def test_a_stopped_node_is_reported(duo: Cluster, children: Children) -> None:
    """Guards the exit status: what could not be asked is not called sound."""
    pid = duo.pid("n2")
    os.kill(pid, signal.SIGSTOP)
    try:
        said = scrub(duo, status=UNREACHABLE)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert said["n1"]["state"] == "done"
    assert said["n2"]["state"] == "unreachable" and said["n2"]["why"]
