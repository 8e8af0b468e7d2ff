"""Reading the past: every commit that `history` keeps is read byte for byte as it was, and no other content ever under
its number, whoever writes, whatever is cached, and whichever node dies. What is not kept is refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspm.errors import AccessError, TooOldError, UsageError
from dspm.txn import Dataset

from .child import Children, Session, SqlError
from .cluster import Cluster, eventually, fresh
from .conftest import Clusters

BUSY_SNAPSHOT, READONLY = 517, 8
SESSION_S = 3
"""A process that says nothing for so long pins nothing any more."""

SCRIPT = [
    "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
    "INSERT INTO t SELECT value, hex(randomblob(500)) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]')",
    "UPDATE t SET v = hex(randomblob(500)) WHERE k % 3 = 0",
    "CREATE TABLE u(k INTEGER PRIMARY KEY, v)",
    "INSERT INTO u SELECT k, v || v || v || v FROM t",
    "INSERT INTO u SELECT k + 100, v || v || v || v FROM t",
    "UPDATE t SET v = 'short' WHERE k = 7",
    "DELETE FROM u WHERE k > 3",
    "VACUUM",
    "DROP TABLE t",
    "VACUUM",
    "INSERT INTO u SELECT k + 200, hex(randomblob(3000)) FROM u",
]


@pytest.fixture(scope="module")
def keeping(clusters: Clusters) -> Cluster:
    """Two nodes; datasets keep a minute."""
    return clusters(2, history="60s")


def image(name: str, cluster: Cluster, as_of: int | str | None = None) -> bytes:
    """All bytes of a state."""
    with Dataset.open(name, readonly=True, config=cluster.config) as ds, ds.snapshot(as_of=as_of) as s:
        return s.read_many([p for p, _ in s.pages()])[: s.size]


def written(cluster: Cluster, writer: Session, name: str) -> dict[int, bytes]:
    """Runs the script; what the database was after each commit."""
    states = {}
    for sql in SCRIPT:
        writer.sql(sql)
        states[int(writer.one("PRAGMA dspm_lsn"))] = image(name, cluster)
    assert len(states) == len(SCRIPT)
    sizes = [len(s) for s in states.values()]
    assert any(a > b for a, b in zip(sizes, sizes[1:], strict=False)), "it shrank"
    return states


def tables(reader: Session) -> dict[str, list[list[object]]]:
    """All rows that a connection sees, and that they are sound."""
    assert reader.one("PRAGMA integrity_check") == "ok"
    names = [str(n) for (n,) in reader.sql("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
    return {n: reader.sql(f"SELECT * FROM {n} ORDER BY k") for n in names}


@pytest.fixture(params=["dspm", "dspm-py"])
def vfs(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_commit_byte_for_byte(keeping: Cluster, children: Children, vfs: str, tmp_path: Path) -> None:
    """In any order, in processes that wrote, that read before, and that are new; by SQL, by pages and as a file."""
    name = fresh("past")
    writer = children.session(keeping, f"file:{name}?vfs={vfs}")
    warm = children.session(keeping, f"file:{name}?vfs={vfs}")
    seen = {}
    states = {}
    for sql in SCRIPT:
        writer.sql(sql)
        lsn = int(writer.one("PRAGMA dspm_lsn"))
        states[lsn], seen[lsn] = image(name, keeping), tables(warm)
    newest = max(states)
    fresh_one = children.session(keeping, f"file:{name}?vfs={vfs}")
    for reader in (warm, writer, fresh_one):
        for lsn in [*sorted(states), *sorted(states, reverse=True)]:
            assert reader.one(f"PRAGMA dspm_as_of={lsn}") == reader.one("PRAGMA dspm_lsn") == str(lsn)
            assert tables(reader) == seen[lsn], f"as of {lsn}"
        assert reader.one("PRAGMA dspm_as_of=now") == "0"
        assert tables(reader) == seen[newest]
    for lsn, state in states.items():
        assert image(name, keeping, lsn) == state
        opened = children.session(keeping, f"file:{name}?vfs={vfs}&as_of={lsn}")
        assert tables(opened) == seen[lsn]
        opened.kill()
    some = sorted(states)[5]
    done = keeping.run("export", name, tmp_path / "f", "--as-of", some)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f").read_bytes() == states[some]
    writer.sql("INSERT INTO u VALUES (999, 'after')")
    assert warm.one("SELECT v FROM u WHERE k = 999") == "after"


def test_between_two_looks(keeping: Cluster, children: Children) -> None:
    """Guards the process's page cache: a list of changes names each page's last change only, and the versions between
    what the process knew and that one are none of what it has."""
    name = fresh("past-between")
    writer, reader = children.session(keeping, name), children.session(keeping, name)
    for table in ("a", "b"):
        writer.sql(f"CREATE TABLE {table}(v)")
        writer.sql(f"INSERT INTO {table} VALUES ('first')")
    assert reader.one("SELECT v FROM a") == "first"
    values = {}
    for value in ("second", "third", "fourth"):
        writer.sql("UPDATE a SET v = ?", value)
        values[int(writer.one("PRAGMA dspm_lsn"))] = value
    assert reader.one("SELECT v FROM b") == "first", "a look at the newest state that fetches no page of a"
    for lsn, value in values.items():
        reader.sql(f"PRAGMA dspm_as_of={lsn}")
        assert reader.one("SELECT v FROM a") == value
        reader.sql("PRAGMA dspm_as_of=0")
        assert reader.one("SELECT v FROM a") == "fourth"


def test_ahead_of_what_the_process_knows(keeping: Cluster, children: Children) -> None:
    """Guards the same: a page fetched for a past that is newer than what the process knows is not its newest."""
    name = fresh("past-ahead")
    writer, reader = children.session(keeping, name), children.session(keeping, name)
    writer.sql("CREATE TABLE a(v)")
    writer.sql("INSERT INTO a VALUES ('first')")
    assert reader.one("SELECT v FROM a") == "first"
    writer.sql("UPDATE a SET v = 'second'")
    between = int(writer.one("PRAGMA dspm_lsn"))
    for n in range(3):
        writer.sql("UPDATE a SET v = ?", f"more {n}")
    reader.sql(f"PRAGMA dspm_as_of={between}")
    assert reader.one("SELECT v FROM a") == "second"
    reader.sql("PRAGMA dspm_as_of=0")
    assert reader.one("SELECT v FROM a") == "more 2"


def test_what_cannot_be_read(keeping: Cluster, children: Children, vfs: str) -> None:
    """The future, another text, a write on top, and what is not kept: refused, and the connection stays where it is."""
    name = fresh("past-refused")
    Dataset.open(name, create=True, config=keeping.config, settings={"history": "0s"}).close()
    writer = children.session(keeping, f"file:{name}?vfs={vfs}")
    for sql in SCRIPT[:4]:
        writer.sql(sql)
    reader = children.session(keeping, f"file:{name}?vfs={vfs}")
    reader.sql("PRAGMA dspm_as_of=4")
    before = tables(reader)
    for value, text in (("9", "the newest is 4"), ("'-30'", "expected"), ("'-1h'", "not known")):
        with pytest.raises(SqlError, match=text):
            reader.sql(f"PRAGMA dspm_as_of={value}")
    with pytest.raises(SqlError) as refused:
        reader.sql("DELETE FROM t")
    assert refused.value.code & 0xFF == READONLY
    assert "as of commit 4" in reader.one("PRAGMA dspm_error")
    writer.sql("UPDATE t SET v = 'new'")

    def oldest() -> int:
        with pytest.raises(SqlError, match="no longer kept; the oldest that can be read is") as gone:
            writer.sql("PRAGMA dspm_as_of=1")
        found = re.search(r"can be read is (\d+)", gone.value.text)
        assert found is not None
        return int(found[1])

    eventually("what nobody keeps is gone", lambda: oldest() == 4)
    assert tables(reader) == before, "it is kept for the one who reads it"
    with Dataset.open(name, config=keeping.config) as ds:
        with pytest.raises(TooOldError, match="the oldest that can be read is 4"):
            ds.snapshot(as_of=3)
        with pytest.raises(UsageError, match="the newest is 5"):
            ds.snapshot(as_of=6)
        with ds.snapshot(as_of=5) as newest, pytest.raises(AccessError, match="can only be read"):
            ds.reservation().reserve(newest)


@pytest.fixture
def brief(keeping: Cluster) -> Iterator[str]:
    """A dataset that keeps a second."""
    name = fresh("past-brief")
    Dataset.open(name, create=True, config=keeping.config, settings={"history": "1s"}).close()
    yield name


def test_kept_for_a_reader_longer_than_history(keeping: Cluster, children: Children, brief: str) -> None:
    """Guards the words by which a process keeps the past alive, and that they end with its reading."""
    writer = children.session(keeping, brief)
    states = written(keeping, writer, brief)
    lsn = sorted(states)[5]
    reader = children.session(keeping, brief, DSPM_CACHE_SIZE="64KiB")
    reader.sql(f"PRAGMA dspm_as_of={lsn}")
    other = children.session(keeping, brief, DSPM_CACHE_SIZE="64KiB")
    other.sql(f"PRAGMA dspm_as_of={lsn}")
    seen = tables(other)
    other.kill()
    with Dataset.open(brief, readonly=True, config=keeping.config) as ds, ds.snapshot(as_of=lsn) as held:
        end = time.monotonic() + 2 * SESSION_S
        while time.monotonic() < end:
            writer.sql("UPDATE u SET v = hex(randomblob(400))")
            time.sleep(0.02)  # what one reader may pin is limited
        with pytest.raises(SqlError, match="no longer kept"):
            writer.sql(f"PRAGMA dspm_as_of={lsn - 1}")
        assert tables(reader) == seen
        assert held.read_many([p for p, _ in held.pages()])[: held.size] == states[lsn]
    reader.sql("PRAGMA dspm_as_of=0")

    def is_gone() -> bool:
        writer.sql("UPDATE u SET v = hex(randomblob(400))")
        try:
            reader.sql(f"PRAGMA dspm_as_of={lsn}")
        except SqlError as e:
            return "no longer kept" in e.text
        reader.sql("PRAGMA dspm_as_of=0")
        return False

    eventually("what nobody reads any more goes", is_gone)


def test_how_long_ago(keeping: Cluster, children: Children, brief: str) -> None:
    """A time finds a state that was the newest at that time or shortly before, never one that came later."""
    writer = children.session(keeping, brief)
    writer.sql("CREATE TABLE t(v)")
    writer.sql("INSERT INTO t VALUES (?)", time.monotonic())
    end = time.monotonic() + 2
    while time.monotonic() < end:
        writer.sql("UPDATE t SET v = ?", time.monotonic())
    # What the writer notes is read before its commit: all that a state shows was noted before the moment asked for.
    asked = time.monotonic()
    assert int(writer.one("PRAGMA dspm_as_of='-500ms'")) > 0
    assert writer.one("SELECT v FROM t") <= time.monotonic() - 0.5
    assert writer.one("PRAGMA dspm_as_of='-0s'") != "0"
    assert asked - 2 < writer.one("SELECT v FROM t"), "of these two seconds"
    with pytest.raises(SqlError, match="newest 3600 s ago is not known"):
        writer.sql("PRAGMA dspm_as_of='-1h'")


def test_nodes_killed(keeping: Cluster, children: Children) -> None:
    """Memory outlives a process, and so does the past that is in it; open connections read on."""
    name = fresh("past-killed")
    writer = children.session(keeping, name)
    states = written(keeping, writer, name)
    primary, (backup,) = keeping.members(name)
    lsn = sorted(states)[4]
    reader = children.session(keeping, name, DSPM_CACHE_SIZE="64KiB")
    reader.sql(f"PRAGMA dspm_as_of={lsn}")
    seen = tables(reader)
    for node in (primary, backup):
        keeping.kill(keeping.pid(node))
        assert tables(reader) == seen, "any member has it"
        keeping.up()
        keeping.wait_whole(name)
        for each, state in states.items():
            assert image(name, keeping, each) == state, f"as of {each}"
    for node in (primary, backup):
        keeping.kill(keeping.pid(node))
    keeping.up()
    keeping.wait_whole(name)
    assert tables(reader) == seen
    for each, state in states.items():
        assert image(name, keeping, each) == state, f"as of {each}"
    writer.sql("DELETE FROM u")
    assert tables(reader) == seen


def test_a_lost_history(clusters: Clusters, children: Children) -> None:
    """All memories are gone: the past is refused, and no number of then is taken for one of now."""
    cluster = clusters(2, history="60s", durability="disk")
    name = fresh("past-lost")
    writer = children.session(cluster, name)
    states = written(cluster, writer, name)
    lsn = sorted(states)[4]
    reader = children.session(cluster, name, DSPM_CACHE_PREFETCH="false")
    reader.sql(f"PRAGMA dspm_as_of={lsn}")
    reader.sql("SELECT * FROM t LIMIT 1")
    cluster.cut_power()
    cluster.up()
    cluster.wait_whole(name)
    with pytest.raises(SqlError) as gone:
        reader.sql("SELECT * FROM t")
    assert gone.value.code == BUSY_SNAPSHOT and "no longer kept" in gone.value.reason
    with pytest.raises(SqlError, match="the oldest that can be read is"):
        reader.sql(f"PRAGMA dspm_as_of={lsn}")
    newest = max(states)
    assert image(name, cluster, newest) == states[newest]


def test_a_reader_that_pins_too_much(keeping: Cluster, children: Children, brief: str) -> None:
    """Guards writers and memory: beyond `history_max` the past goes, and its reader is told so at its next page."""
    writer = children.session(keeping, brief)
    for sql in SCRIPT[:6]:
        writer.sql(sql)
    reader = children.session(keeping, brief, DSPM_CACHE_SIZE="64KiB", DSPM_CACHE_PREFETCH="false")
    reader.sql("PRAGMA cache_size=1")
    reader.sql("PRAGMA dspm_as_of=6")
    rows = reader.one("SELECT count(*) FROM u")

    def is_told() -> bool:
        writer.sql("UPDATE u SET v = hex(randomblob(30000))")
        reader.sql("PRAGMA shrink_memory")
        try:
            assert reader.one("SELECT count(v) FROM u") == rows
        except SqlError as e:
            assert e.code == BUSY_SNAPSHOT and "no longer kept" in e.reason
            return True
        return False

    eventually("its versions are gone", is_told)
    writer.sql("DELETE FROM u")
    reader.sql("PRAGMA dspm_as_of=0")
    assert reader.one("SELECT count(*) FROM u") == 0
