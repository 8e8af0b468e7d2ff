"""What a program meets at the edges of the two VFSes: names, ways to open, locks, refusals, faults. Each test runs
through `dspm` and through `dspm-py`, which have to do the same.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from clusters import cluster, config  # noqa: F401

import dspm
from dspm.engine.vfs import register_python
from dspm.errors import UsageError
from dspm.txn import Dataset, PageNo

Open = Callable[..., apsw.Connection]

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(params=["dspm", "dspm-py"])
def vfs(request: pytest.FixtureRequest) -> str:
    register_python()
    return str(request.param)


@pytest.fixture
def name() -> str:
    return f"v-{secrets.token_hex(5)}.db"


@pytest.fixture
def connect(vfs: str, name: str) -> Open:
    """Opens the test's database; parameters of the URI by keyword."""

    def opened(**parameters: str) -> apsw.Connection:
        query = "&".join(f"{k}={v}" for k, v in {"vfs": vfs, **parameters}.items())
        return dspm.connect(f"file:{name}?{query}")

    return opened


@pytest.fixture
def db(connect: Open) -> apsw.Connection:
    db = connect()
    db.execute("CREATE TABLE t(a)")
    return db


def rows(db: apsw.Connection, sql: str = "SELECT group_concat(a) FROM t") -> Any:
    found = db.execute(sql).fetchall()
    return found[0][0] if found else None


def code(db: apsw.Connection, *statements: str) -> int:
    """Extended result code of the statement that fails, which is the last one."""
    for sql in statements[:-1]:
        db.execute(sql).fetchall()
    with pytest.raises(apsw.Error) as caught:
        db.execute(statements[-1]).fetchall()
    return int(getattr(caught.value, "extendedresult", -1))


def header(name: str) -> bytes:
    with Dataset.open(name, readonly=True) as ds, ds.snapshot() as s:
        return s.read(PageNo(0))[:100]


def counters(name: str) -> tuple[int, int]:
    found = header(name)
    return int.from_bytes(found[24:28], "big"), int.from_bytes(found[92:96], "big")


def plain(path: Path) -> apsw.Connection:
    """A file, with URIs allowed for what is attached to it."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    return apsw.Connection(str(path), flags=flags)


def own_client() -> dict[str, str]:
    """A parameter that makes a connection a client of its own, as one of another process is."""
    return {"namespace": ""}


@pytest.mark.parametrize("typed", ["./{}", "a/../{}", "{}//x/./y", "/abs//{}", "../{}", "größe/{}"])
def test_names_are_cleaned_alike(vfs: str, name: str, typed: str) -> None:
    typed = typed.format(name)
    db = dspm.connect(f"file:{typed}?vfs={vfs}" if not typed.startswith("/") else f"file://{typed}?vfs={vfs}")
    db.execute("CREATE TABLE t(a)")
    parts = [p for p in typed.split("/") if p not in ("", ".")]
    cleaned = "/".join(parts[parts.index("..") + 1 :] if parts[0] == "a" else parts)
    assert db.filename == ("/" if typed.startswith("/") else "") + cleaned
    assert dspm.Dataset.open(db.filename).size > 0


@pytest.mark.parametrize("typed", ["..", "/", "a/..", "n" * 520])
def test_impossible_names_are_refused(vfs: str, typed: str) -> None:
    with pytest.raises(apsw.CantOpenError):
        dspm.connect(f"file:{typed}?vfs={vfs}")


def test_ways_to_open(connect: Open, name: str) -> None:
    for missing in ({"mode": "ro"}, {"mode": "rw"}, {"immutable": "1"}):
        with pytest.raises(apsw.CantOpenError, match="v-"):
            connect(**missing)
    db = connect()
    db.execute("CREATE TABLE t(a)")
    db.execute("INSERT INTO t VALUES(1)")
    with pytest.raises(apsw.CantOpenError, match="nolock=1"):
        connect(nolock="1")
    frozen, reader, writer = connect(immutable="1"), connect(mode="ro"), connect(mode="rw")
    writer.execute("INSERT INTO t VALUES(2)")
    assert (rows(frozen), rows(reader)) == ("1", "1,2")
    for read_only in (frozen, reader):
        assert code(read_only, "INSERT INTO t VALUES(3)") == apsw.SQLITE_READONLY
    assert header(name)[18:20] == b"\1\1"


def test_python_s_sqlite3_has_only_one_of_them(name: str) -> None:
    with pytest.raises(UsageError, match="apsw only"):
        dspm.sqlite3_connect(f"file:{name}?vfs=dspm-py")


def test_pragmas(connect: Open, name: str) -> None:
    db = connect()
    assert rows(db, "PRAGMA journal_mode=WAL") == "delete"
    assert [rows(db, f"PRAGMA locking_mode{x}") for x in ("", "=EXCLUSIVE", "=what", "=NORMAL")] == [
        "normal",
        "exclusive",
        "exclusive",
        "normal",
    ]
    assert rows(db, "PRAGMA dspm_lsn") == "0"
    db.execute("CREATE TABLE t(a)")
    db.execute("BEGIN")
    assert (rows(db), rows(db, "PRAGMA dspm_lsn")) == (None, "1")
    db.execute("COMMIT")
    assert rows(db, "PRAGMA dspm_durability") == rows(db, "PRAGMA dspm_durability=memory") == "memory"
    with pytest.raises(apsw.SQLError, match="fixed when it is made; this one has 'memory'"):
        db.execute("PRAGMA dspm_durability=disk")
    assert rows(db, "PRAGMA dspm_as_of") == "0"
    status = rows(db, "PRAGMA dspm_status")
    assert f'"dataset":"{name}"' in status and '"lsn":1' in status and '"lease":"held"' in status


def test_the_past(connect: Open, name: str) -> None:
    Dataset.open(name, create=True, settings={"history": "5m"}).close()
    db = connect()
    for sql in (
        "CREATE TABLE t(a)",
        "INSERT INTO t VALUES(1)",
        "CREATE TABLE u(b)",
        "UPDATE t SET a = 2",
        "DROP TABLE u",
    ):
        db.execute(sql)
    for lsn, seen in ((2, [1]), (4, [2]), (1, [None]), (3, [1]), (5, [2])):
        assert (
            rows(db, f"PRAGMA dspm_as_of={lsn}")
            == rows(db, "PRAGMA dspm_as_of")
            == rows(db, "PRAGMA dspm_lsn")
            == str(lsn)
        )
        assert [rows(db, "SELECT max(a) FROM t")] == seen
        assert rows(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'u'") == int(lsn in (3, 4))
        assert rows(db, "PRAGMA integrity_check") == "ok"
    assert code(db, "UPDATE t SET a = 3") == code(db, "BEGIN IMMEDIATE") == apsw.SQLITE_READONLY
    assert "as of commit 5: PRAGMA dspm_as_of = 0 goes back" in rows(db, "PRAGMA dspm_error")
    db.execute("PRAGMA dspm_as_of=2")
    for value, text in (
        ("6", f"{name}: .*commit 6 is not there yet; the newest is 5"),
        ("soon", "as_of 'soon': expected"),
    ):
        with pytest.raises(apsw.SQLError, match=text):
            db.execute(f"PRAGMA dspm_as_of={value}")
    db.execute("BEGIN")
    assert rows(db) == "1"
    with pytest.raises(apsw.SQLError, match="cannot change inside a transaction"):
        db.execute("PRAGMA dspm_as_of=0")
    db.execute("COMMIT")
    other = connect()
    other.execute("INSERT INTO t VALUES(7)")
    assert (rows(db), rows(db, "PRAGMA dspm_as_of=NOW"), rows(db)) == ("1", "0", "2,7")
    db.execute("INSERT INTO t VALUES(8)")
    other.execute("ALTER TABLE t RENAME TO s")
    assert rows(db, "SELECT group_concat(a) FROM s") == "2,7,8"
    assert db.pragma("integrity_check") == "ok"


def test_a_uri_of_the_past(connect: Open, name: str, vfs: str) -> None:
    Dataset.open(name, create=True, settings={"history": "5m"}).close()
    db = connect()
    for sql in ("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "UPDATE t SET a = 2"):
        db.execute(sql)
    past = connect(as_of="2")
    assert (rows(past), past.readonly("main"), code(past, "DELETE FROM t")) == ("1", True, apsw.SQLITE_READONLY)
    db.execute(f"ATTACH 'file:{name}?vfs={vfs}&as_of=2' AS old")
    assert rows(db, "SELECT old.t.a || main.t.a FROM main.t, old.t") == "12"
    db.execute("INSERT INTO main.t SELECT a + 4 FROM old.t")
    assert (rows(db), rows(past)) == ("2,5", "1")
    for time in ("9", "tomorrow", ""):
        with pytest.raises(apsw.CantOpenError):
            connect(as_of=time)
    with pytest.raises(apsw.SQLError, match="immutable"):
        connect(immutable="1").execute("PRAGMA dspm_as_of=2")


@pytest.mark.parametrize("setting", ["locking_mode=NORMAL", "locking_mode=EXCLUSIVE", "synchronous=OFF"])
def test_every_commit_has_its_own_counter(connect: Open, db: apsw.Connection, name: str, setting: str) -> None:
    db.execute(f"PRAGMA {setting}").fetchall()
    reader = connect(**own_client())
    for i in range(1, 8):
        before = counters(name)
        db.execute("INSERT INTO t VALUES(?)", (i,))
        assert counters(name) == (before[0] + 1, before[1] + 1)
        assert rows(reader, "SELECT count(*) FROM t") == i


def test_counters_go_on_where_sqlite_never_unlocks(connect: Open, vfs: str, name: str, tmp_path: Path) -> None:
    """A main database on another VFS passes its locking mode on to those attached: SQLite then stops counting."""
    db = plain(tmp_path / "main.db")
    db.execute("ATTACH ? AS aux", (f"file:{name}?vfs={vfs}",))
    db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    db.execute("CREATE TABLE aux.t(a)")
    reader = connect(**own_client())
    for i in range(1, 6):
        before = counters(name)
        db.execute("INSERT INTO aux.t VALUES(?)", (i,))
        assert counters(name) == (before[0] + 1, before[1] + 1)
        assert rows(reader, "SELECT count(*) FROM t") == i
    assert code(reader, "INSERT INTO t VALUES(9)") == apsw.SQLITE_BUSY
    db.execute("BEGIN")
    db.execute("INSERT INTO aux.t VALUES(7)")
    db.execute("ROLLBACK")
    db.execute("PRAGMA locking_mode=NORMAL").fetchall()
    assert rows(db, "SELECT group_concat(a) FROM aux.t") == "1,2,3,4,5"
    reader.execute("INSERT INTO t VALUES(9)")
    assert rows(db, "SELECT count(*) FROM aux.t") == 6


@pytest.mark.parametrize("own", [{}, own_client()], ids=["same client", "another client"])
def test_readers_keep_their_snapshot_and_stale_ones_cannot_write(
    connect: Open, db: apsw.Connection, own: dict[str, str]
) -> None:
    other = connect(**own)
    db.execute("INSERT INTO t VALUES(1)")
    other.execute("BEGIN")
    assert rows(other) == "1"
    db.execute("INSERT INTO t VALUES(2)")
    assert (rows(other), rows(db)) == ("1", "1,2")
    assert code(other, "INSERT INTO t VALUES(3)") == apsw.SQLITE_BUSY_SNAPSHOT
    assert rows(other) == "1"
    other.execute("ROLLBACK")
    other.execute("INSERT INTO t VALUES(3)")
    assert rows(db) == "1,2,3"


def test_a_commit_s_own_readers_stay_where_they_were(connect: Open, db: apsw.Connection) -> None:
    """A cursor that is open over its connection's commit reads on at that commit, whatever others commit."""
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO t SELECT i FROM n"
    )
    db.execute("PRAGMA cache_size=1")
    cursor = db.execute("SELECT a, zeroblob(100) FROM t")
    assert next(cursor)[0] == 1
    db.execute("UPDATE t SET a = a + 1000 WHERE a > 200")
    other = connect(**own_client())
    other.execute("UPDATE t SET a = 0")
    assert [a for a, _ in cursor] == [*range(2, 201), *range(1201, 1401)]
    assert rows(db, "SELECT sum(a) FROM t") == 0


@pytest.mark.parametrize("own", [{}, own_client()], ids=["same client", "another client"])
def test_a_writer_is_alone(connect: Open, db: apsw.Connection, own: dict[str, str]) -> None:
    other = connect(**own)
    db.execute("BEGIN IMMEDIATE")
    assert code(other, "BEGIN IMMEDIATE") == apsw.SQLITE_BUSY
    assert code(other, "INSERT INTO t VALUES(1)") == apsw.SQLITE_BUSY
    assert rows(other) is None
    db.execute("INSERT INTO t VALUES(1)")
    db.execute("COMMIT")
    other.set_busy_timeout(5000)
    other.execute("INSERT INTO t VALUES(2)")
    assert rows(db) == "1,2"


def test_an_empty_write_transaction_makes_no_commit(db: apsw.Connection, name: str) -> None:
    with Dataset.open(name) as ds:
        lsn = ds.lsn
        for begin in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
            before = ds.status().round_trips
            db.execute(begin)
            db.execute("COMMIT")
            assert ds.status().round_trips > before, "it asked whether it was the writer to the end"
        db.execute("BEGIN")
        db.execute("INSERT INTO t VALUES(1)")
        assert ds.is_reserved
        db.execute("ROLLBACK")
        assert (ds.lsn, ds.is_reserved) == (lsn, False)


def test_exclusive_keeps_others_from_writing_until_normal(connect: Open, db: apsw.Connection) -> None:
    other = connect(**own_client())
    db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
    db.execute("INSERT INTO t VALUES(1)")
    assert rows(other) == "1"
    assert code(other, "INSERT INTO t VALUES(2)") == apsw.SQLITE_BUSY
    db.execute("INSERT INTO t VALUES(3)")
    db.execute("PRAGMA locking_mode=NORMAL").fetchall()
    other.set_busy_timeout(5000)
    other.execute("INSERT INTO t VALUES(4)")
    assert rows(db) == "1,3,4"
    second = connect()
    for holder in (db, second):
        holder.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        assert rows(holder) == "1,3,4"
    db.close()
    other.set_busy_timeout(0)
    assert code(other, "INSERT INTO t VALUES(5)") == apsw.SQLITE_BUSY, "the other one still holds it"
    second.close()
    other.set_busy_timeout(5000)
    other.execute("INSERT INTO t VALUES(5)")


SETTINGS = ["SELECT 1", "PRAGMA synchronous=OFF", "PRAGMA journal_mode=MEMORY", "PRAGMA aux.journal_mode=PERSIST"]
BOTH = "SELECT (SELECT group_concat(DISTINCT a) FROM t) || '-' || (SELECT group_concat(DISTINCT a) FROM u)"


def with_another(db: apsw.Connection, name: str, setting: str, cache: int) -> None:
    """Attaches a second database with a table u, and sets both up."""
    db.execute(f"ATTACH '{name}-aux' AS aux")
    db.execute("CREATE TABLE aux.u(a)")
    db.execute("INSERT INTO t VALUES('main')")
    db.execute("INSERT INTO u VALUES('aux')")
    db.execute(setting).fetchall()
    db.execute(setting.replace("PRAGMA ", "PRAGMA aux.") if "aux" not in setting else setting).fetchall()
    db.execute(f"PRAGMA main.cache_size={cache}")
    db.execute(f"PRAGMA aux.cache_size={cache}")


def change_both(db: apsw.Connection, to: str) -> None:
    db.execute("BEGIN")
    for table in "tu":
        db.execute(f"INSERT INTO {table} SELECT hex(zeroblob(3000)) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)")
        db.execute(f"UPDATE {table} SET a = ?", (to,))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("cache", [-2000, 1], ids=["cached", "spilled"])
def test_two_written_databases_are_one_commit(db: apsw.Connection, name: str, setting: str, cache: int) -> None:
    with_another(db, name, setting, cache)
    with Dataset.open(name) as one, Dataset.open(f"{name}-aux") as two:
        before = one.lsn, two.lsn
        change_both(db, "both")
        assert (one.lsn, two.lsn) == before
        db.execute("COMMIT")
        # The second one's commit, and the record that says that it counts.
        assert (one.lsn, two.lsn) == (before[0] + 1, before[1] + 2)
        assert rows(db, BOTH) == "both-both"
        change_both(db, "lost")
        db.execute("ROLLBACK")
        assert (rows(db, BOTH), one.lsn, two.lsn) == ("both-both", before[0] + 1, before[1] + 2)
    db.execute("DETACH aux")
    other = dspm.connect(name)
    other.execute(f"ATTACH '{name}-aux' AS aux")
    assert rows(other, BOTH) == "both-both"
    for schema in ("main", "aux"):
        assert rows(other, f"PRAGMA {schema}.integrity_check") == "ok"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("cache", [-2000, 1], ids=["cached", "spilled"])
def test_one_that_cannot_take_it_fails_both(db: apsw.Connection, name: str, setting: str, cache: int) -> None:
    with_another(db, name, setting, cache)
    with Dataset.open(name) as one, Dataset.open(f"{name}-aux") as two:
        before = one.lsn, two.lsn
        change_both(db, "lost")
        # The nodes of these tests have 128 MiB: one transaction may take a third of that.
        db.execute("INSERT INTO u VALUES(zeroblob(?))", (44 << 20,))
        assert code(db, "COMMIT") == apsw.SQLITE_FULL
        assert not db.in_transaction
        for schema in ("main", "aux"):
            assert "a transaction of" in rows(db, f"PRAGMA {schema}.dspm_error")
        assert (one.lsn, two.lsn) == before
    assert rows(db, BOTH) == "main-aux"
    change_both(db, "next")
    db.execute("COMMIT")
    assert rows(db, BOTH) == "next-next"


def test_databases_opened_differently_do_not_commit_together(db: apsw.Connection, vfs: str, name: str) -> None:
    """They are two clients, as those of two clusters are: neither can speak for the other."""
    db.execute(f"ATTACH 'file:{name}-aux?vfs={vfs}&namespace=' AS aux")
    db.execute("CREATE TABLE aux.u(a)")
    change_both(db, "lost")
    assert code(db, "COMMIT") & 0xFF == apsw.SQLITE_IOERR
    assert "cannot commit together" in rows(db, "PRAGMA main.dspm_error")
    assert (rows(db), rows(db, "SELECT group_concat(a) FROM u")) == (None, None)
    for table in "tu":
        db.execute(f"INSERT INTO {table} VALUES('alone')")


def test_a_super_journal_of_another_vfs_is_refused(db: apsw.Connection, vfs: str, name: str, tmp_path: Path) -> None:
    db.execute("INSERT INTO t VALUES('kept')")
    twin = f"file:{name}-twin?vfs={'dspm' if vfs == 'dspm-py' else 'dspm-py'}"
    for both in (plain(tmp_path / "main.db"), dspm.connect(twin)):
        both.execute("CREATE TABLE m(a)")
        both.execute("ATTACH ? AS aux", (f"file:{name}?vfs={vfs}",))
        both.execute("BEGIN")
        both.execute("INSERT INTO m VALUES(1)")
        both.execute("UPDATE aux.t SET a = 'lost'")
        assert code(both, "COMMIT") & 0xFF == apsw.SQLITE_IOERR
        assert "use one VFS for all databases" in rows(both, "PRAGMA aux.dspm_error")
        assert (rows(both, "SELECT count(*) FROM m"), rows(both, "SELECT a FROM aux.t")) == (0, "kept")
        both.execute("UPDATE aux.t SET a = 'kept'")
        both.close()
    assert rows(db) == "kept"


def test_a_journal_larger_than_its_memory_rolls_back(db: apsw.Connection) -> None:
    db.execute("PRAGMA cache_size=50")
    rows_of_a_page = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)"
    rows_of_a_page += " SELECT hex(zeroblob(2000)) FROM n"
    db.execute(f"INSERT INTO t {rows_of_a_page}")
    db.execute("BEGIN")
    db.execute("UPDATE t SET a = zeroblob(4000)")
    db.execute("ROLLBACK")
    assert rows(db, "SELECT count(*), count(DISTINCT a) FROM t") == 2500
    assert rows(db, "SELECT DISTINCT typeof(a) FROM t") == "text"


def test_a_transaction_that_is_too_large_leaves_nothing(db: apsw.Connection, connect: Open, name: str) -> None:
    db.execute("INSERT INTO t VALUES('kept')")
    db.execute("BEGIN")
    # The nodes of these tests have 128 MiB: one transaction may take a third of that.
    db.execute("INSERT INTO t VALUES(zeroblob(?))", (44 << 20,))
    assert code(db, "COMMIT") == apsw.SQLITE_FULL
    assert not db.in_transaction
    assert rows(db) == rows(connect(**own_client())) == "kept"
    db.execute("UPDATE t SET a = 'next'")
    assert rows(db) == "next"


def test_a_removed_database_can_be_made_again(db: apsw.Connection, connect: Open, name: str) -> None:
    db.execute("INSERT INTO t VALUES(1)")
    db.close()
    dspm.txn.remove(name)
    again = connect()
    again.execute("CREATE TABLE t(a)")
    assert rows(again) is None


def test_a_forked_child_opens_its_own(db: apsw.Connection, vfs: str, name: str) -> None:
    program = f"""
import os, apsw, dspm
uri = "file:{name}?vfs={vfs}"
db = dspm.connect(uri)
db.execute("BEGIN IMMEDIATE"); db.execute("INSERT INTO t VALUES(1)")
if (pid := os.fork()) == 0:
    try: db.execute("COMMIT")
    except apsw.IOError: pass
    else: os._exit(2)
    try: db.close()
    except apsw.IOError: pass  # apsw tells of errors in a VFS in Python that SQLite itself ignores
    own = dspm.connect(uri)
    os._exit(3 if own.execute("SELECT * FROM t").fetchall() else 0)
assert os.waitpid(pid, 0)[1] == 0
db.execute("COMMIT")
assert db.execute("SELECT * FROM t").fetchall() == [(1,)]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert rows(db) == "1"


def test_processes_of_both_lose_nothing(name: str) -> None:
    program = """
import sys, dspm
db = dspm.connect(sys.argv[1])
db.set_busy_timeout(60000)
for _ in range(30):
    db.execute("BEGIN IMMEDIATE")
    n = db.execute("SELECT n FROM c").fetchall()[0][0]
    db.execute("UPDATE c SET n = ?", (n + 1,))
    db.execute("COMMIT")
"""
    db = dspm.connect(name)
    db.execute("CREATE TABLE c(n)")
    db.execute("INSERT INTO c VALUES(0)")
    command = [sys.executable, "-c", program]
    children = [subprocess.Popen([*command, f"file:{name}?vfs={v}"]) for v in ("dspm", "dspm-py", "dspm-py", "dspm")]
    assert [child.wait(timeout=120) for child in children] == [0] * 4
    assert rows(db, "SELECT n FROM c") == 120
    assert rows(db, "PRAGMA integrity_check") == "ok"


def test_a_killed_writer_leaves_no_hot_journal(db: apsw.Connection, vfs: str, name: str) -> None:
    program = f"""
import os, signal, dspm
db = dspm.connect("file:{name}?vfs={vfs}")
db.execute("PRAGMA cache_size=1")
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t SELECT hex(zeroblob(3000)) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)")
db.execute("UPDATE t SET a = 'lost'")
os.kill(os.getpid(), signal.SIGKILL)
"""
    db.execute("INSERT INTO t VALUES('kept')")
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -9
    db.set_busy_timeout(10_000)
    db.execute("INSERT INTO t VALUES('next')")
    assert rows(db) == "kept,next"
    assert rows(db, "PRAGMA integrity_check") == "ok"
