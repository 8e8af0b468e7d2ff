"""Bad input to `dspm import` and `dspm export`: one sentence, a hint, the status of the contract, nothing half-made."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401
from conftest import Run

from dspm.txn import list_datasets


def database(path: Path) -> bytes:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t(v)")
    db.executemany("INSERT INTO t VALUES(?)", ((f"{i:0500d}",) for i in range(500)))
    db.commit()
    db.close()
    return path.read_bytes()


def changed(content: bytes, at: int, to: bytes) -> bytes:
    return content[:at] + to + content[at + len(to) :]


SOURCES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "short": (lambda _: b"SQLite format 3\0", "no SQLite database"),
    "foreign": (lambda _: os.urandom(9000), "no SQLite database"),
    "text": (lambda _: b"hello\n" * 2000, "no SQLite database"),
    "page size": (lambda c: changed(c, 16, b"\x03\x00"), "header makes no sense"),
    "versions": (lambda c: changed(c, 18, b"\x07\x07"), "header makes no sense"),
    "cut inside a page": (lambda c: c[:-100], "not a number of pages"),
    "cut at a page": (lambda c: c[: len(c) // 8192 * 4096], "cut off"),
    "schema": (lambda c: changed(c, 100, b"\xff" * 3996), "damaged"),
}


def check(done: object, codes: set[int], text: str) -> None:
    returncode, stderr = done.returncode, done.stderr  # type: ignore[attr-defined]
    lines = stderr.strip().split("\n")
    assert returncode in codes, stderr
    assert len(lines) == 2 and lines[0].startswith("dspm: error: ") and lines[1].startswith("hint: "), stderr
    assert text in lines[0]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", SOURCES)
def test_sources_that_are_no_database(tmp_path: Path, dspm: Run, kind: str) -> None:
    spoil, text = SOURCES[kind]
    source = tmp_path / "source.db"
    spoiled = spoil(database(source))
    source.write_bytes(spoiled)
    check(dspm("import", source, "bad.db"), {4}, text)
    assert list_datasets() == [] and source.read_bytes() == spoiled
    assert [p.name for p in tmp_path.iterdir() if p.name != "cluster"] == ["source.db"]


@pytest.mark.usefixtures("cluster")
def test_damage_that_only_an_integrity_check_finds(tmp_path: Path, dspm: Run) -> None:
    source = tmp_path / "source.db"
    source.write_bytes(changed(database(source), 5 * 4096, b"\xee" * 4096))
    check(dspm("import", source, "bad.db", "--check"), {4}, "damaged")
    assert list_datasets() == []


@pytest.mark.usefixtures("cluster")
def test_sources_that_cannot_be_read(tmp_path: Path, dspm: Run) -> None:
    check(dspm("import", tmp_path / "missing.db", "x.db"), {1}, "No such file")
    check(dspm("import", tmp_path, "x.db"), {1}, "directory")
    os.mkfifo(tmp_path / "pipe")
    check(dspm("import", tmp_path / "pipe", "x.db"), {1}, "not a regular file")
    source = tmp_path / "source.db"
    database(source)
    busy = sqlite3.connect(source, isolation_level=None)
    busy.execute("BEGIN EXCLUSIVE")
    check(dspm("import", source, "x.db"), {1}, "in use")
    busy.close()
    assert list_datasets() == []


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["n" * 1025, "", "/", "..", ".import-x", "shop/.import-x", "x.db-journal", "x.db-wal"])
def test_names(tmp_path: Path, dspm: Run, name: str) -> None:
    database(tmp_path / "source.db")
    check(dspm("import", tmp_path / "source.db", name), {2}, "")
    assert list_datasets() == []


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["with space.db", "a/b/../c.db", "/abs/olute.db", "ünï-✓.db", "n" * 1024, "-dash.db"])
def test_unusual_names_are_fine(tmp_path: Path, dspm: Run, name: str) -> None:
    content = database(tmp_path / "source.db")
    assert dspm("import", "--", tmp_path / "source.db", name).returncode == 0
    assert len(list_datasets()) == 1
    assert dspm("export", "--", name, tmp_path / "out.db").returncode == 0
    assert (tmp_path / "out.db").read_bytes() == content
    assert dspm("rm", "--", name).returncode == 0


@pytest.mark.usefixtures("cluster")
def test_exports_that_cannot_be(tmp_path: Path, dspm: Run) -> None:
    content = database(tmp_path / "source.db")
    assert dspm("import", tmp_path / "source.db", "e.db").returncode == 0
    out = tmp_path / "out.db"
    check(dspm("export", "no-such.db", out), {1, 2, 4}, "no dataset named")
    check(dspm("export", "e.db", tmp_path), {1}, "is a directory")
    check(dspm("export", "e.db", tmp_path / "none" / "out.db"), {1}, "not a directory")
    assert not out.exists() and not (tmp_path / "out.db.part").exists()
    out.write_bytes(b"precious")
    check(dspm("export", "e.db", out), {1}, "exists already")
    assert out.read_bytes() == b"precious"
    assert dspm("export", "e.db", out, "--force").returncode == 0
    assert out.read_bytes() == content
    (tmp_path / "new.db-wal").write_bytes(b"old log")
    check(dspm("export", "e.db", tmp_path / "new.db"), {1}, "lies beside it")
    (tmp_path / "left.db.part").write_bytes(b"left by a killed export" * 10_000)
    with (tmp_path / "left.db.part").open() as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        check(dspm("export", "e.db", tmp_path / "left.db"), {1}, "another export")
    assert dspm("export", "e.db", tmp_path / "left.db").returncode == 0
    assert (tmp_path / "left.db").read_bytes() == content
    check(dspm("export", "e.db", "/dev/full"), {1}, "exists already")
    assert json.loads(dspm("ls", "--json").stdout) == {"datasets": [{"name": "e.db", "size": len(content)}]}
    assert dspm("rm", "e.db").returncode == 0


def test_without_a_cluster(tmp_path: Path, dspm: Run) -> None:
    database(tmp_path / "source.db")
    check(dspm("import", tmp_path / "source.db", "x.db"), {3}, "")
    check(dspm("export", "x.db", tmp_path / "out.db"), {3}, "")
    check(dspm("import", tmp_path / "source.db"), {2}, "")
    assert not (tmp_path / "out.db").exists()
