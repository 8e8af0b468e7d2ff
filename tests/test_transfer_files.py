"""`dspm import` and `dspm export`: the same bytes, whole or not at all, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401
from conftest import BIN, Run

import dspm as package
from dspm.errors import DspmError, FullError
from dspm.txn import PAGE_SIZE, Dataset, PageNo, Transaction, hidden, importing, list_datasets, remove
from dspm.txn.importing import import_file

pytestmark = pytest.mark.usefixtures("cluster")


def make(
    path: Path, rows: int = 200, page_size: int = 4096, mode: str = "delete", keep: bool = False
) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size={page_size}")
    db.execute(f"PRAGMA journal_mode={mode}")
    db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES(?, randomblob(500))", ((i,) for i in range(rows)))
    db.execute("COMMIT")
    if not keep:
        db.close()
    return db


def names() -> set[str]:
    return {e.name for e in list_datasets()}


def export_of(dspm: Run, name: str, to: Path) -> bytes:
    done = dspm("export", name, to)
    assert done.returncode == 0, done.stderr
    assert not to.with_name(to.name + ".part").exists()
    return to.read_bytes()


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 8192, 65536])
def test_a_round_trip_keeps_every_byte(dspm: Run, tmp_path: Path, page_size: int) -> None:
    source, name = tmp_path / "plain.db", f"ns/plain {page_size}.db"
    make(source, page_size=page_size)
    done = dspm("import", source, name, "--check")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert export_of(dspm, name, tmp_path / "out.db") == source.read_bytes()
    with package.sqlite3_connect(name) as db:
        assert db.execute("SELECT count(*), sum(length(b)) FROM t").fetchone() == (200, 100_000)
        db.execute("DELETE FROM t WHERE n >= 100")
    db.close()
    export_of(dspm, name, tmp_path / "changed.db")
    with sqlite3.connect(tmp_path / "changed.db") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (100,)
    plain.close()


def test_several_commits_and_a_last_page_in_part(tmp_path: Path, dspm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "large.db"
    make(source, rows=3001, page_size=512)
    assert source.stat().st_size % PAGE_SIZE
    monkeypatch.setattr(importing, "COMMIT_BYTES", 256 << 10)
    done = import_file(source, "large.db")
    with Dataset.open("large.db") as ds, ds.snapshot() as s:
        assert (s.size, done.size) == (source.stat().st_size, source.stat().st_size)
        assert s.lsn == -(-s.size // (256 << 10)) > 5
    assert export_of(dspm, "large.db", tmp_path / "out.db") == source.read_bytes()


def test_a_write_ahead_source(tmp_path: Path, dspm: Run) -> None:
    """Most of it is in the log, and a program has it open."""
    source = tmp_path / "wal.db"
    db = make(source, mode="wal", keep=True)
    assert (tmp_path / "wal.db-wal").stat().st_size > 100_000
    assert dspm("import", source, "wal.db", "--check").returncode == 0
    out = export_of(dspm, "wal.db", tmp_path / "out.db")
    assert out[18:20] == b"\1\1"
    db.close()
    assert dspm("import", source, "closed.db").returncode == 0
    for name in ("wal.db", "closed.db"):
        with package.sqlite3_connect(name) as mine:
            assert mine.execute("SELECT count(*) FROM t").fetchone() == (200,)
        mine.close()


def test_a_hot_journal_is_rolled_back(tmp_path: Path, dspm: Run) -> None:
    source = tmp_path / "hot.db"
    make(source).close()
    before = source.read_bytes()
    code = (
        "import sqlite3, os; db = sqlite3.connect('hot.db', isolation_level=None); db.execute('PRAGMA cache_size=5');"
        "db.execute('BEGIN'); db.execute('UPDATE t SET b = zeroblob(500)'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([BIN.parent / "python", "-c", code], cwd=tmp_path)
    assert (tmp_path / "hot.db-journal").exists() and source.read_bytes() != before
    assert dspm("import", source, "hot.db").returncode == 0
    assert export_of(dspm, "hot.db", tmp_path / "out.db") == before


def test_an_import_replaces_only_when_asked(tmp_path: Path, dspm: Run) -> None:
    for rows in (10, 20):
        make(tmp_path / f"{rows}.db", rows=rows)
    assert dspm("import", tmp_path / "10.db", "r.db").returncode == 0
    refused = dspm("import", tmp_path / "20.db", "r.db")
    assert refused.returncode == 1 and "exists already" in refused.stderr and "--replace" in refused.stderr
    assert export_of(dspm, "r.db", tmp_path / "a") == (tmp_path / "10.db").read_bytes()
    assert dspm("import", tmp_path / "20.db", "r.db", "--replace").returncode == 0
    assert export_of(dspm, "r.db", tmp_path / "b") == (tmp_path / "20.db").read_bytes()
    assert dspm("import", tmp_path / "10.db", "fresh.db", "--replace").returncode == 0
    assert not [n for n in names() if hidden.is_hidden(n)]


def test_an_import_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "s.db"
    make(source)
    make(tmp_path / "old.db", rows=3)
    import_file(tmp_path / "old.db", "kept.db")
    before = names()
    broken = [
        ("_copy", KeyboardInterrupt),
        ("_verify", DspmError("differs")),
        ("_check_integrity", DspmError("damaged")),
    ]
    for step, error in broken:
        with monkeypatch.context() as patched:
            patched.setattr(importing, step, lambda *_a, error=error: (_ for _ in ()).throw(error))
            with pytest.raises((KeyboardInterrupt, DspmError)):
                import_file(source, "kept.db", replace=True, check=True)
        assert names() == before

    def lost(name: str, to: str, *, aside: str | None) -> None:
        raise DspmError("the registry went away")

    with monkeypatch.context() as patched:
        patched.setattr(importing, "rename", lost)
        with pytest.raises(DspmError, match="went away"):
            import_file(source, "kept.db", replace=True)
    assert names() == before
    with Dataset.open("kept.db") as ds:
        assert ds.size == (tmp_path / "old.db").stat().st_size


def test_what_is_read_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "s.db"
    make(source)
    commit = Transaction.commit

    def flip(t: Transaction) -> int:
        if 3 in t._written:
            t._written[3] = bytes(PAGE_SIZE)
        return commit(t)

    monkeypatch.setattr(Transaction, "commit", flip)
    with pytest.raises(DspmError, match="not what was written"):
        import_file(source, "flipped.db")
    assert "flipped.db" not in names()


def test_it_waits_for_room(tmp_path: Path, dspm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "s.db"
    make(source)
    commit, refusals = Transaction.commit, iter([True, True, False])

    def full(t: Transaction) -> int:
        if next(refusals, False):
            raise FullError("the arena of a member is full")
        return commit(t)

    monkeypatch.setattr(Transaction, "commit", full)
    import_file(source, "waited.db")
    assert export_of(dspm, "waited.db", tmp_path / "out.db") == source.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_import_leaves_nothing_visible(tmp_path: Path, dspm: Run, number: signal.Signals) -> None:
    source = tmp_path / "k.db"
    make(source, rows=60_000)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([BIN, "import", source, "killed.db"], env=env, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not any(hidden.is_hidden(n) for n in names()) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), err
    assert b"Traceback" not in err
    assert "killed.db" not in names()
    assert ".import-" not in dspm("ls").stdout and "killed" not in dspm("ls").stdout
    left = [n for n in names() if hidden.is_hidden(n)]
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    for n in left:
        remove(n)


def test_leftovers_go_with_the_next_import(tmp_path: Path) -> None:
    source = tmp_path / "s.db"
    make(source, rows=3)
    old = f"{hidden.IMPORT}{int(time.time()) - 3600:x}-"
    for name in (old + "dead", old + "alive", hidden.fresh_name(hidden.IMPORT) + "young", f"{hidden.REPLACED}1-kept"):
        Dataset.open(name, create=True).close()
    with Dataset.open(old + "alive", settings={"cache.size": "1MiB"}) as ds, ds.transaction():
        import_file(source, "tidy.db")
        left = [n for n in names() if hidden.is_hidden(n)]
    assert old + "dead" not in left and old + "alive" in left and len(left) == 3
    for n in left:
        remove(n)


def test_an_export_shows_one_state_while_others_write(tmp_path: Path, dspm: Run) -> None:
    with Dataset.open("moving", create=True) as ds:
        with ds.transaction() as t:
            t.write(PageNo(0), b"\1" * PAGE_SIZE * 4000)
        process = subprocess.Popen([BIN, "export", "moving", tmp_path / "out"], stdout=subprocess.DEVNULL)
        value = 1
        while process.poll() is None:
            value = value % 255 + 1
            with ds.transaction() as t:
                for first in range(0, 4000, 40):
                    t.write(PageNo(first), bytes([value]) * PAGE_SIZE * 40)
    assert process.returncode == 0
    content = (tmp_path / "out").read_bytes()
    assert len(content) == 4000 * PAGE_SIZE and len(set(content)) == 1
