"""The registry's state in one SQLite file.

Invariants: every decision is one transaction that compares and raises `cluster.version`, so a second registry on the
same file can never decide on what it read before; a transaction is on disk before anyone hears of it (rollback
journal, synchronous FULL); an id is drawn once and never again, also after its dataset is gone; that a dataset was
removed, or that a node no longer holds it, is a row for each node that has yet to free it, never the absence of one.
A group that was drawn and that no dataset has was removed; one that was never drawn here is not known.
Drawn in docs/formats/registry.md.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from dspm.errors import ConflictError, DataError, DspmError
from dspm.netram.messages import DatasetEntry, MemberEntry, NodeEntry, SetEntry

_SCHEMA = (
    "CREATE TABLE cluster(id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, version INTEGER NOT NULL,"
    " view_version INTEGER NOT NULL)",
    "CREATE TABLE nodes(name TEXT PRIMARY KEY, address TEXT NOT NULL, machine TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sets(id TEXT PRIMARY KEY, generation INTEGER NOT NULL, state TEXT NOT NULL,"
    " primary_node TEXT NOT NULL, members BLOB NOT NULL, joining BLOB NOT NULL, last_active BLOB NOT NULL,"
    " dropped BLOB NOT NULL DEFAULT '[]', history INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "CREATE TABLE datasets(name TEXT PRIMARY KEY, dataset TEXT NOT NULL UNIQUE, group_id TEXT NOT NULL UNIQUE,"
    " set_id TEXT NOT NULL REFERENCES sets(id), durability TEXT NOT NULL, copies INTEGER NOT NULL,"
    " min_copies INTEGER NOT NULL, history_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE ids(id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE removed(node TEXT NOT NULL, group_id TEXT NOT NULL, dataset TEXT NOT NULL,"
    " PRIMARY KEY(node, group_id)) WITHOUT ROWID",
    "CREATE TABLE draining(node TEXT PRIMARY KEY) WITHOUT ROWID",
    "PRAGMA user_version = 4",
)
_FORMAT = 4
_FROM_3 = (
    "ALTER TABLE sets ADD COLUMN dropped BLOB NOT NULL DEFAULT '[]'",
    "ALTER TABLE sets ADD COLUMN history INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE draining(node TEXT PRIMARY KEY) WITHOUT ROWID",
    "PRAGMA user_version = 4",
)


class Store:
    """The file. `version` counts decisions, `view_version` those that change nodes or sets."""

    version: int
    view_version: int
    cluster: str

    def __init__(self, path: Path, cluster: str) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._open(cluster)
        except sqlite3.DatabaseError as e:
            raise self._failed(e) from None

    def _open(self, cluster: str) -> None:
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._write((*_SCHEMA, ("INSERT INTO cluster VALUES(1, ?, 1, 1)", (cluster,))))
        elif found == 3:
            self._write(_FROM_3)
        elif found != _FORMAT:
            raise DataError(
                f"the registry's state {self._path} has format {found} where {_FORMAT} is known",
                "use the dspm version that wrote it, or a newer one",
            )
        name, self.version, self.view_version = self._db.execute(
            "SELECT name, version, view_version FROM cluster"
        ).fetchone()
        if cluster and name != cluster:
            raise DspmError(f"{self._path} belongs to the cluster {name!r}, not {cluster!r}", "check `cluster`")
        self.cluster = name

    def _write(self, statements: Iterable[str | tuple[str, tuple[str, ...]]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for statement in statements:
            self._db.execute(*((statement,) if isinstance(statement, str) else statement))
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _failed(self, e: sqlite3.Error) -> DspmError:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DataError(f"the registry's state {self._path} is damaged: {e}", "restore it from a backup")
        return DspmError(f"the registry's state {self._path} cannot be used: {e}", "check the disk and permissions")

    @contextlib.contextmanager
    def decide(self, changes_view: bool) -> Iterator[sqlite3.Connection]:
        """One decision: compare and swap of the version, and whatever the body writes, or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute(
                    "UPDATE cluster SET version = version + 1, view_version = view_version + ? WHERE version = ? "
                    "RETURNING version",
                    (int(changes_view), self.version),
                ).fetchall()
                if not row:
                    raise ConflictError("another registry changed the state", "run one registry only")
                yield self._db
                row = self._db.execute("SELECT version, view_version FROM cluster").fetchall()
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as e:
            raise self._failed(e) from None
        self.version, self.view_version = row[0]

    def new_id(self, db: sqlite3.Connection) -> int:
        """A random u64 that was never given before."""
        while True:
            drawn = secrets.randbits(64)
            if drawn and db.execute("INSERT OR IGNORE INTO ids VALUES(?)", (_hex(drawn),)).rowcount == 1:
                return drawn

    def given(self) -> set[int]:
        """Every id that was given, also of what is gone."""
        return {int(id, 16) for (id,) in self._db.execute("SELECT id FROM ids")}

    def nodes(self) -> list[NodeEntry]:
        """All nodes by name."""
        return [NodeEntry(*row) for row in self._db.execute("SELECT name, address, machine FROM nodes ORDER BY name")]

    def sets(self) -> list[SetEntry]:
        """All replica sets."""
        columns = "id, generation, state, primary_node, members, joining, last_active, dropped, history"
        rows = self._db.execute(f"SELECT {columns} FROM sets")
        found = []
        for id, generation, state, primary, *lists, history in rows:
            members, joining, last_active, dropped = map(_members, lists)
            found.append(
                SetEntry(int(id, 16), generation, state, primary, members, joining, last_active, dropped, history)
            )
        return found

    def draining(self) -> set[str]:
        """Nodes that sets move away from."""
        return {node for (node,) in self._db.execute("SELECT node FROM draining")}

    def datasets(self) -> list[DatasetEntry]:
        """The catalog."""
        columns = "name, dataset, group_id, set_id, durability, copies, min_copies, history_ms"
        rows = self._db.execute(f"SELECT {columns} FROM datasets ORDER BY name")
        return [DatasetEntry(r[0], int(r[1], 16), int(r[2], 16), int(r[3], 16), *r[4:]) for r in rows]

    def was_removed(self, group: int) -> bool:
        """True for a group that was drawn here and that no dataset has. One that another state drew is not known."""
        drawn, held = "SELECT 1 FROM ids WHERE id = ?", "SELECT 1 FROM datasets WHERE group_id = ?"
        try:
            row = self._db.execute(
                f"SELECT EXISTS ({drawn}) AND NOT EXISTS ({held})", (_hex(group), _hex(group))
            ).fetchone()
        except sqlite3.DatabaseError as e:
            raise self._failed(e) from None
        return bool(row[0])

    def removed(self) -> Iterable[tuple[str, int, int]]:
        """Node, group and dataset of every removal that a node has yet to carry out."""
        for node, group, dataset in self._db.execute("SELECT node, group_id, dataset FROM removed"):
            yield node, int(group, 16), int(dataset, 16)


def replace_all(
    db: sqlite3.Connection,
    view_version: int,
    nodes: Iterable[NodeEntry],
    sets: Iterable[SetEntry],
    datasets: Iterable[DatasetEntry],
) -> None:
    """Another state takes the place of this one; what was given and what is owed stays, but for what is there again."""
    db.execute("UPDATE cluster SET view_version = ?", (view_version,))
    for table in ("datasets", "sets", "nodes"):
        db.execute(f"DELETE FROM {table}")
    for node in nodes:
        put_node(db, node)
    given = "INSERT OR IGNORE INTO ids VALUES(?)"
    for entry in sets:
        put_set(db, entry)
        db.execute(given, (_hex(entry.id),))
    for d in datasets:
        add_dataset(db, d)
        db.executemany(given, [(_hex(d.dataset),), (_hex(d.group),)])
    for table, column in (("draining", "node"), ("removed", "node")):
        db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT name FROM nodes)")
    db.execute("DELETE FROM removed WHERE group_id IN (SELECT group_id FROM datasets)")


def put_node(db: sqlite3.Connection, node: NodeEntry) -> None:
    """Adds a node, or takes over its new address and machine."""
    db.execute("INSERT OR REPLACE INTO nodes VALUES(?, ?, ?)", (node.name, node.address, node.machine))


def remove_node(db: sqlite3.Connection, node: str) -> None:
    """Forgets a node, and what it had yet to free."""
    for table, column in (("nodes", "name"), ("draining", "node"), ("removed", "node")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (node,))


def remove_set(db: sqlite3.Connection, set_id: int) -> None:
    """Forgets a set without datasets."""
    db.execute("DELETE FROM sets WHERE id = ?", (_hex(set_id),))


def put_set(db: sqlite3.Connection, entry: SetEntry) -> None:
    """Writes a set."""
    lists = (msgspec.json.encode(m) for m in (entry.members, entry.joining, entry.last_active, entry.dropped))
    row = (_hex(entry.id), entry.generation, entry.state, entry.primary, *lists, entry.history)
    db.execute("INSERT OR REPLACE INTO sets VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def put_draining(db: sqlite3.Connection, node: str, draining: bool) -> None:
    """Notes that sets move away from a node, or no longer."""
    if draining:
        db.execute("INSERT OR IGNORE INTO draining VALUES(?)", (node,))
    else:
        db.execute("DELETE FROM draining WHERE node = ?", (node,))


def add_dataset(db: sqlite3.Connection, d: DatasetEntry) -> None:
    """Adds a dataset; its name must be free."""
    ids = (_hex(d.dataset), _hex(d.group), _hex(d.set))
    values = (d.name, *ids, d.durability, d.copies, d.min_copies, d.history_ms)
    db.execute("INSERT INTO datasets VALUES(?,?,?,?,?,?,?,?)", values)


def remove_dataset(db: sqlite3.Connection, d: DatasetEntry, nodes: Iterable[str]) -> None:
    """Removes a dataset, and notes that these nodes have to free it; its id stays used."""
    db.execute("DELETE FROM datasets WHERE name = ?", (d.name,))
    owed = [(n, _hex(d.group), _hex(d.dataset)) for n in nodes]
    db.executemany("INSERT OR IGNORE INTO removed VALUES(?, ?, ?)", owed)


def owe(db: sqlite3.Connection, node: str, set_id: int) -> None:
    """Notes that the node has to free what it holds of a set."""
    groups = "SELECT ?, group_id, dataset FROM datasets WHERE set_id = ?"
    db.execute(f"INSERT OR IGNORE INTO removed {groups}", (node, _hex(set_id)))


def take_back(db: sqlite3.Connection, node: str, set_id: int) -> None:
    """Notes that the node need not free what it holds of a set."""
    groups = "SELECT group_id FROM datasets WHERE set_id = ?"
    db.execute(f"DELETE FROM removed WHERE node = ? AND group_id IN ({groups})", (node, _hex(set_id)))


def freed(db: sqlite3.Connection, node: str, groups: Iterable[int]) -> None:
    """Notes that a node has freed these groups."""
    db.executemany("DELETE FROM removed WHERE node = ? AND group_id = ?", [(node, _hex(g)) for g in groups])


def rename_dataset(db: sqlite3.Connection, name: str, to: str) -> None:
    """Gives a dataset another name."""
    db.execute("UPDATE datasets SET name = ? WHERE name = ?", (to, name))


def _hex(number: int) -> str:
    return f"{number:016x}"


def _members(raw: bytes) -> list[MemberEntry]:
    return msgspec.json.decode(raw, type=list[MemberEntry])
