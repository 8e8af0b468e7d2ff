"""The same SQL on plain SQLite, on `dspm` and on `dspm-py`: every step has to answer the same, and the databases that
remain have to be the same bytes.

A few cases in which every two settings meet run by default; `GOLDEN=full` runs the whole product, for a quarter of an
hour.

Fault model: none. What is guarded is that a program cannot tell a dataset from a file, and that the two VFSes are one.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from clusters import cluster, config  # noqa: F401
from golden_script import run_script
from golden_sql import Case, Dspm, Plain, Session, Target, all_cases, opened, pairwise_cases

CASES = all_cases() if os.environ.get("GOLDEN") == "full" else pairwise_cases()

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def files() -> Iterator[Path]:
    """A directory for plain files: in memory, since what a disk's sync costs is not the question."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dspm-golden-", dir=where) as directory:
        yield Path(directory)


def steps(target: Target, case: Case, directory: Path) -> Session:
    directory.mkdir()
    session = Session(target, case, directory)
    run_script(session)
    return session


def image(session: Session, name: str) -> bytes:
    """The database without what differs on purpose: a dataset never has the write-ahead format, which a backup copies
    (bytes 18 and 19), and its change counter is raised also where plain SQLite keeps its exclusive lock.
    """
    found = bytearray(session.target.image(name))
    found[18:20] = b"\1\1"
    found[24:28] = found[92:96] = bytes(4)
    return bytes(found)


def check_same(what: str, one: bytes, other: bytes) -> None:
    if one != other:
        differing = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
        pytest.fail(f"{what}: {len(one)} and {len(other)} bytes; they differ at {differing[:9]}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_answers_and_same_bytes(case: Case, files: Path) -> None:
    prefix = secrets.token_hex(4)
    plain = steps(Plain(files), case, files / "plain")
    native = steps(Dspm("dspm", prefix), case, files / "native")
    python = steps(Dspm("dspm-py", prefix), case, files / "python")
    for found, who in ((native, "dspm"), (python, "dspm-py")):
        for number, (expected, answered) in enumerate(zip(plain.steps, found.steps, strict=True)):
            assert answered == expected, f"{who}, step {number}: {expected[0]}"
    for name in ("main", "aux", "third", "copy", "back"):
        check_same(f"{name} of dspm and of dspm-py", native.target.image(name), python.target.image(name))
        if case.journal != "wal":  # where SQLite writes pages in another order
            check_same(f"{name} as file and as dataset", image(plain, name), image(native, name))


def test_the_script_itself_meets_errors_and_rows(files: Path) -> None:
    """A script whose steps all failed alike would prove nothing."""
    session = steps(Plain(files), Case(4096, "delete", 0, "normal", 5), files / "plain")
    errors = [(label, answer) for label, answer in session.steps if isinstance(answer, tuple)]
    rows = [answer for _, answer in session.steps if isinstance(answer, list) and answer]
    assert len(rows) > 150
    kinds = {answer[0] for _, answer in errors}
    assert kinds == {"AbortError", "BusyError", "ValueError", "ConstraintError", "SQLError"}, errors
    assert len(errors) < 25, errors


def test_pairs_are_all_there() -> None:
    chosen = pairwise_cases()
    for one, other in itertools.combinations([f.name for f in dataclasses.fields(Case)], 2):
        wanted = {(getattr(c, one), getattr(c, other)) for c in all_cases()}
        assert {(getattr(c, one), getattr(c, other)) for c in chosen} == wanted


@pytest.mark.parametrize("vfs", ["dspm", "dspm-py"])
def test_one_reads_what_the_other_wrote(vfs: str) -> None:
    prefix, twin = secrets.token_hex(4), {"dspm": "dspm-py", "dspm-py": "dspm"}[vfs]
    for i in range(20):
        writer, reader = Dspm(vfs, prefix), Dspm(twin, prefix)
        reader.prefix = writer.prefix
        with opened(Session(writer, CASES[0], Path()), "x") as w, opened(Session(reader, CASES[0], Path()), "x") as r:
            w.execute("CREATE TABLE IF NOT EXISTS t(a)")
            w.execute("INSERT INTO t VALUES(?)", (i,))
            assert r.execute("SELECT count(*), max(a) FROM t").fetchall() == [(i + 1, i)]
            w.execute("BEGIN IMMEDIATE")
            with pytest.raises(apsw.BusyError):
                r.execute("BEGIN IMMEDIATE")
            w.execute("COMMIT")
