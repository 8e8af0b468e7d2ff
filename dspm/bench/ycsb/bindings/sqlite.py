"""SQLite through apsw, on any VFS.

The table and the statements are those of YCSB's JDBC binding: `usertable` with a VARCHAR primary key (an ordinary
rowid table with its automatic index, not WITHOUT ROWID) and VARCHAR fields; `SELECT *` by key; scans by
`>= ? ORDER BY YCSB_KEY LIMIT ?`. Unlike there, a read-modify-write is one transaction, begun IMMEDIATE.
"""

# The methods are documented where they are declared, in `Binding`.
# ruff: noqa: D102
from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Sequence

import apsw

from dspm.bench.ycsb.bindings.base import Binding, Facts, Status
from dspm.bench.ycsb.target import Target
from dspm.errors import DataError, DspmError, UnavailableError

TABLE = "usertable"
BUSY_TIMEOUT_MS = 20_000
RETRY_SECONDS_MAX = 60.0

_READ = f"SELECT * FROM {TABLE} WHERE YCSB_KEY = ?"
_SCAN = f"SELECT * FROM {TABLE} WHERE YCSB_KEY >= ? ORDER BY YCSB_KEY LIMIT ?"
_ROWS = f"SELECT * FROM {TABLE}"


def create_statement(fields: int) -> str:
    """The table of YCSB's jdbc/src/main/resources/sql/create_table.sql, for any number of fields."""
    columns = ", ".join(f"FIELD{field} VARCHAR" for field in range(fields))
    return f"CREATE TABLE {TABLE}(YCSB_KEY VARCHAR PRIMARY KEY, {columns})"


def open_connection(target: Target, db: str, page_size: int) -> apsw.Connection:
    """Opens the database of `target`. Page size counts only while the database is empty."""
    try:
        connection = _connect_dspm(db) if target.reports_itself else apsw.Connection(db)
    except apsw.Error as error:
        why, _, hint = str(error).partition("\nhint: ")
        raise DspmError(
            f"cannot open {db} (target {target.name}): {why}", hint or "check --db, --dir and --target"
        ) from error
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.pragma("page_size", page_size)
    if not target.is_file:
        return connection
    mode = str(connection.pragma("journal_mode", target.journal_mode))
    if mode != target.journal_mode:
        raise DspmError(f"SQLite keeps journal mode {mode} for {db}, not {target.journal_mode}", "give another --dir")
    connection.pragma("synchronous", "FULL")
    return connection


def _connect_dspm(name: str) -> apsw.Connection:
    try:
        connect = importlib.import_module("dspm").connect
    except (ImportError, AttributeError) as error:
        raise UnavailableError(f"this installation of dspm cannot open data sets: {error}", "make build") from error
    connection = connect(name)
    assert isinstance(connection, apsw.Connection)
    return connection


class SqliteBinding(Binding):
    """One connection to the database of a target."""

    def __init__(self, target: Target, db: str, cache_size: int, page_size: int, fields: int) -> None:
        self._target = target
        self._connection = open_connection(target, db, page_size)
        self._connection.pragma("cache_size", cache_size)
        self._execute = self._connection.cursor().execute
        self._updates = [f"UPDATE {TABLE} SET FIELD{field}=? WHERE YCSB_KEY = ?" for field in range(fields)]
        self._insert = f"INSERT INTO {TABLE} VALUES(?{',?' * fields})"

    def create(self, fields: int) -> None:
        with self._connection:
            self._execute(f"DROP TABLE IF EXISTS {TABLE}")
            self._execute(create_statement(fields))

    def read(self, key: str) -> Status:
        return self._run(lambda: self._read(key))

    def _read(self, key: str) -> Status:
        return Status.OK if self._execute(_READ, (key,)).fetchall() else Status.NOT_FOUND

    def scan(self, key: str, count: int) -> Status:
        return self._run(lambda: self._scan(key, count))

    def _scan(self, key: str, count: int) -> Status:
        self._execute(_SCAN, (key, count)).fetchall()
        return Status.OK

    def update(self, key: str, field: int, value: str) -> Status:
        return self._run(lambda: self._update(key, field, value))

    def _update(self, key: str, field: int, value: str) -> Status:
        self._execute(self._updates[field], (value, key))
        return Status.OK if self._connection.changes() else Status.NOT_FOUND

    def insert(self, records: Sequence[tuple[str, ...]]) -> Status:
        return self._run(lambda: self._insert_all(records))

    def _insert_all(self, records: Sequence[tuple[str, ...]]) -> Status:
        if len(records) == 1:
            self._execute(self._insert, records[0])
            return Status.OK
        self._execute("BEGIN IMMEDIATE")
        self._connection.executemany(self._insert, records)
        self._execute("COMMIT")
        return Status.OK

    def read_modify_write(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        return self._run(lambda: self._read_modify_write(key, field, change))

    def _read_modify_write(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        self._execute("BEGIN IMMEDIATE")
        rows = self._execute(_READ, (key,)).fetchall()
        if rows:
            self._execute(self._updates[field], (change(rows[0][field + 1]), key))
        self._execute("COMMIT")
        return Status.OK if rows else Status.NOT_FOUND

    def _run(self, body: Callable[[], Status]) -> Status:
        """Runs an operation, again while another writer is in the way. The busy timeout does the waiting."""
        deadline = 0.0
        while True:
            try:
                return body()
            except apsw.BusyError as error:
                self._roll_back()
                deadline = deadline or time.monotonic() + RETRY_SECONDS_MAX
                if time.monotonic() > deadline:
                    return self._failed(error)
                self.retries += 1
            except apsw.Error as error:
                self._roll_back()
                return self._failed(error)

    def _failed(self, error: apsw.Error) -> Status:
        self.last_error = f"{type(error).__name__}: {error}"
        return Status.ERROR

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def rows(self) -> Iterator[tuple[object, ...]]:
        return iter(self._connection.execute(_ROWS))

    def facts(self) -> Facts:
        if not self._connection.table_exists("main", TABLE):
            raise DataError(
                f"the database holds no table {TABLE} (target {self._target.name})",
                "fill it first: dspm ycsb load with the same --target, --db and --dir",
            )
        records = int(self._connection.execute(f"SELECT count(*) FROM {TABLE}").get)
        page_size = int(self._connection.pragma("page_size"))
        durability, copies = self._durability()
        return Facts(
            records=records,
            size_bytes=page_size * int(self._connection.pragma("page_count")),
            page_size=page_size,
            journal_mode=str(self._connection.pragma("journal_mode")),
            durability=durability,
            copies=copies,
        )

    def _durability(self) -> tuple[str, int]:
        """The target's own, or what the dspm VFS reports of the data set."""
        if not self._target.reports_itself:
            return self._target.durability, self._target.copies
        cell = self._connection.pragma("dspm_status")
        status = json.loads(cell) if isinstance(cell, str) else {}
        return str(status.get("durability", "unknown")), int(status.get("copies", 0))

    def close(self) -> None:
        self._connection.close()
