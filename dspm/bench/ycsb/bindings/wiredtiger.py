"""WiredTiger in process, over a library of this machine.

One table: the key is YCSB's, the value holds all fields, each behind its length in four bytes (big-endian), as YCSB's
bindings of key-value stores keep it. An update reads the value, changes one field and writes it, in one transaction
under snapshot isolation; who meets another's write tries again.
"""

# The methods are documented where they are declared, in `Binding`.
# ruff: noqa: D102
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dspm.bench.wiredtiger.database import ROLLBACK, Place, WiredTigerError, shared
from dspm.bench.wiredtiger.library import find, load
from dspm.bench.ycsb.bindings.base import Binding, Facts, Status
from dspm.bench.ycsb.target import Target
from dspm.errors import DataError
from dspm.netram.client import ask_any
from dspm.netram.config import load_cluster
from dspm.netram.messages import Locate, Located
from dspm.netram.names import dataset_name

TABLE = "table:usertable"
NO_TABLE = 2
"""ENOENT."""
RETRY_SECONDS_MAX = 60.0
LEAF_BYTES = 32 * 1024
"""WiredTiger's default leaf_page_max, which mongod leaves as it is too."""
LENGTH_BYTES = 4


def pack(fields: Sequence[str]) -> bytes:
    """A value."""
    return b"".join(len(raw).to_bytes(LENGTH_BYTES, "big") + raw for raw in (text.encode() for text in fields))


def unpack(value: bytes) -> list[str]:
    """The fields of a value. One that is cut off is what is left of it, which no reader takes for whole."""
    fields, at = [], 0
    while at < len(value):
        length = int.from_bytes(value[at : at + LENGTH_BYTES], "big")
        fields.append(value[at + LENGTH_BYTES : at + LENGTH_BYTES + length].decode("utf-8", "replace"))
        at += LENGTH_BYTES + length
    return fields


class WiredTigerBinding(Binding):
    """One session of the process's connection."""

    def __init__(self, target: Target, where: str, library: str, cache_bytes: int) -> None:
        self._target = target
        self._where = where
        self._open = contextlib.ExitStack()
        connection = self._open.enter_context(shared(load(find(library)), _place(target, where), cache_bytes))
        self._connection = connection
        try:
            self._table = connection.table(TABLE)
        except WiredTigerError as error:
            self._missing: WiredTigerError | None = error
            if error.number != NO_TABLE:
                self._open.close()
                raise
        else:
            self._missing = None

    def create(self, fields: int) -> None:
        if self._missing is None:
            self._table.close()
        self._table, self._missing = self._connection.table(TABLE, create=True), None

    def read(self, key: str) -> Status:
        return self._run(lambda: self._read(key))

    def _read(self, key: str) -> Status:
        value = self._table.get(key)
        return Status.NOT_FOUND if value is None or not unpack(value) else Status.OK

    def scan(self, key: str, count: int) -> Status:
        return self._run(lambda: self._scan(key, count))

    def _scan(self, key: str, count: int) -> Status:
        for value in self._table.scan(key, count):
            unpack(value)
        return Status.OK

    def update(self, key: str, field: int, value: str) -> Status:
        return self._run(lambda: self._change(key, field, lambda _: value))

    def read_modify_write(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        return self._run(lambda: self._change(key, field, change))

    def _change(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        with self._table.transaction():
            found = self._table.get(key)
            if found is None:
                return Status.NOT_FOUND
            fields = unpack(found)
            fields[field] = change(fields[field])
            self._table.put(key, pack(fields))
        return Status.OK

    def insert(self, records: Sequence[tuple[str, ...]]) -> Status:
        return self._run(lambda: self._insert(records))

    def _insert(self, records: Sequence[tuple[str, ...]]) -> Status:
        with self._table.transaction():
            for key, *fields in records:
                self._table.put(key, pack(fields))
        return Status.OK

    def _run(self, body: Callable[[], Status]) -> Status:
        """Runs an operation, again while another's write is in the way."""
        deadline = 0.0
        while True:
            try:
                return body()
            except WiredTigerError as error:
                deadline = deadline or time.monotonic() + RETRY_SECONDS_MAX
                if error.number != ROLLBACK or time.monotonic() > deadline:
                    self.last_error = str(error)
                    return Status.ERROR
                self.retries += 1

    def rows(self) -> Iterator[tuple[object, ...]]:
        return ((key, *unpack(value)) for key, value in self._table.rows())

    def facts(self) -> Facts:
        if self._missing is not None:
            raise DataError(
                f"the database holds no table {TABLE} (target {self._target.name})",
                "fill it first: dspm ycsb load with the same --target, --db and --dir",
            ) from self._missing
        durability, copies = self._durability()
        return Facts(
            records=sum(1 for _ in self._table.rows()),
            size_bytes=self._table.file_bytes(),
            page_size=LEAF_BYTES,
            journal_mode="log",
            durability=durability,
            copies=copies,
        )

    def _durability(self) -> tuple[str, int]:
        """The target's own, or what the cluster says of the data set."""
        if not self._target.reports_itself:
            return self._target.durability, self._target.copies
        config = load_cluster()
        entry = ask_any(config, Locate(dataset_name(config.namespace, self._where)), Located).entry
        return str(entry.durability), entry.copies

    def close(self) -> None:
        if self._missing is None:
            self._table.close()
        self._open.close()


def _place(target: Target, where: str) -> Place:
    if target.is_file:
        Path(where).mkdir(parents=True, exist_ok=True)
        return Place(directory=where)
    return Place(dataset=where, config=str(load_cluster().path or ""))
