"""What the golden SQL tests run on, and how: targets, cases, and sessions that write down every answer.

A *target* is a place for databases: plain files, datasets through `dspm`, datasets through `dspm-py`. A *case* is a way
to set a database up. A *session* runs steps on one target and keeps (step, answer) pairs, which have to be the same on
all targets. Names of databases differ among targets, so steps name them as `{main}`, `{aux}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

import dspm
from dspm.engine.vfs import register_python
from dspm.txn import Dataset

Answer = list[tuple[Any, ...]] | tuple[str, ...]
"""Rows, or an error."""

PAGE_SIZES = (512, 1024, 4096, 8192, 32768, 65536)
JOURNALS = ("delete", "truncate", "persist", "memory", "off", "wal")
AUTO_VACUUMS = (0, 1, 2)
LOCKINGS = ("normal", "exclusive")
CACHES = (-2000, 5)
"""`cache_size`: 2 MB, and so few pages that most transactions spill."""


@dataclass(frozen=True)
class Case:
    """How the database under test is set up."""

    page_size: int
    journal: str
    auto_vacuum: int
    locking: str
    cache: int

    def __str__(self) -> str:
        return f"{self.page_size}-{self.journal}-av{self.auto_vacuum}-{self.locking}-cache{self.cache}"

    @property
    def rolls_back(self) -> bool:
        """Without a journal SQLite promises nothing about what a rollback leaves."""
        return self.journal != "off"

    @property
    def is_shared(self) -> bool:
        """Whether a second connection may come: files keep it out while they are locked for good."""
        return self.locking == "normal"


def all_cases() -> list[Case]:
    """The whole product."""
    return [Case(*c) for c in itertools.product(PAGE_SIZES, JOURNALS, AUTO_VACUUMS, LOCKINGS, CACHES)]


def pairwise_cases() -> list[Case]:
    """Few cases in which every two values of different settings meet: where two settings suffice to break something,
    one of these cases is broken.
    """
    # In an order of no meaning, or the settings that matter no more would all be the first ones.
    cases = sorted(all_cases(), key=lambda c: hashlib.sha256(str(c).encode()).digest())
    missing = set().union(*(_pairs(c) for c in cases))
    chosen = []
    while missing:
        best = max(cases, key=lambda c: len(_pairs(c) & missing))
        chosen.append(best)
        missing -= _pairs(best)
    return chosen


def _pairs(case: Case) -> set[tuple[tuple[int, Any], ...]]:
    values = (case.page_size, case.journal, case.auto_vacuum, case.locking, case.cache)
    return set(itertools.combinations(enumerate(values), 2))


class Plain:
    """Files of a directory, through SQLite's own VFS."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def uri(self, name: str) -> str:
        return f"file:{self.directory / name}?vfs=unix"

    def open(self, name: str) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        return apsw.Connection(self.uri(name), flags=flags)

    def image(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()


class Dspm:
    """Datasets, through one of the two VFSes."""

    def __init__(self, vfs: str, prefix: str) -> None:
        self.vfs, self.prefix = vfs, f"{prefix}-{vfs}"
        register_python()

    def uri(self, name: str) -> str:
        return f"file:{self.prefix}-{name}?vfs={self.vfs}"

    def open(self, name: str) -> apsw.Connection:
        return dspm.connect(self.uri(name))

    def image(self, name: str) -> bytes:
        with Dataset.open(f"{self.prefix}-{name}", readonly=True) as ds, ds.snapshot() as s:
            return b"".join(content for _, content in s.pages())[: s.size]


Target = Plain | Dspm


@dataclass
class Session:
    """One run of the script on one target."""

    target: Target
    case: Case
    scratch: Path
    """For plain files that a step needs on every target."""
    steps: list[tuple[str, Answer]] = field(default_factory=list)

    def open(self, name: str) -> apsw.Connection:
        """A connection, to be closed by the script."""
        return self.target.open(name)

    def run(self, db: apsw.Connection, *statements: str) -> None:
        """Runs statements one by one and notes what each answers."""
        for sql in statements:
            self.note(sql, lambda sql=sql: db.execute(self.named(sql)).fetchall())

    def note(self, label: str, work: Callable[[], Any]) -> None:
        """Notes what a piece of work answers: a value, rows, or an error."""
        try:
            answer = work()
        except (apsw.Error, ValueError) as e:
            answer = (type(e).__name__, str(getattr(e, "extendedresult", "")), str(e))
        self.steps.append((label, answer))

    def named(self, sql: str) -> str:
        """The step with the target's names of databases."""
        for name in ("main", "aux", "third", "copy", "back"):
            sql = sql.replace(f"{{{name}}}", self.target.uri(name))
        return sql

    def check(self, db: apsw.Connection, label: str, schema: str = "main") -> None:
        """Notes the whole content, by hash, and what SQLite thinks of it."""
        self.note(f"{label}: content of {schema}", lambda: content(db, schema))
        pragmas = ("page_count", "freelist_count", "page_size", "auto_vacuum", "user_version", "integrity_check")
        self.run(db, *(f"PRAGMA {schema}.{p}" for p in pragmas), f"PRAGMA {schema}.foreign_key_check")


def content(db: apsw.Connection, schema: str = "main") -> list[tuple[Any, ...]]:
    """Each table with the number of its rows and a hash over them."""
    names = db.execute(f"SELECT name, sql FROM {schema}.sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    rows: list[tuple[Any, ...]] = [("schema", hashlib.sha256(repr(names).encode()).hexdigest())]
    for name, _ in names:
        digest, count = hashlib.sha256(), 0
        for row in db.execute(f'SELECT * FROM {schema}."{name}"'):
            digest.update(repr(row).encode())
            count += 1
        rows.append((name, count, digest.hexdigest()))
    return rows


@contextlib.contextmanager
def opened(session: Session, name: str) -> Iterator[apsw.Connection]:
    """A connection for the length of a block."""
    db = session.open(name)
    try:
        yield db
    finally:
        db.close()
