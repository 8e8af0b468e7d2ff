"""Transactions over several databases: at most one dspm database is written in each.

SQLite commits several databases in one of two ways. With a super-journal, deleting that is the decision, and errors
after it are ignored: so a database is published when its super-journal is deleted, where an error still stops the
transaction. Without one (synchronous=OFF, journals in memory, a `:memory:` main) it says SYNC to each, then PHASETWO to
each: a second written database has to be noticed at its SYNC, by the connection that both belong to.

Refused at FCNTL_SYNC, where SQLite rolls all of them back: the second written database of a connection, and any whose
super-journal another VFS keeps, since that one decides without us. SQLite, rolling back, replays a journal only if the
super-journal that it names exists: for a refused foreign one an empty stand-in is kept until the transaction is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspm.errors import UsageError

if TYPE_CHECKING:
    from dspm.engine.pyvfs.database import Database


@dataclass(frozen=True)
class _Stage:
    database: Database
    connection: int
    """Address of the sqlite3 object, 0 if SQLite never said."""
    super_journal: str | None


class Stages:
    """The written databases whose transaction has begun to commit."""

    def __init__(self) -> None:
        self._stages: list[_Stage] = []
        self._lock = threading.Lock()

    def enter(self, stage: _Stage) -> bool:
        """False if another database of the same connection is there."""
        with self._lock:
            self._stages = [s for s in self._stages if s.database is not stage.database]
            if stage.connection and any(s.connection == stage.connection for s in self._stages):
                return False
            self._stages.append(stage)
            return True

    def remove(self, database: Database) -> None:
        """Its transaction is over."""
        with self._lock:
            self._stages = [s for s in self._stages if s.database is not database]

    def of_super(self, name: str) -> list[Database]:
        """The databases that wait for that super-journal's end."""
        with self._lock:
            return [s.database for s in self._stages if s.super_journal == name]


def stage(database: Database, super_journal: str | None) -> None:
    """FCNTL_SYNC: a transaction begins to commit, or a rollback is at its end."""
    if database.overlay is None:
        raise UsageError("a sync without a write lock", "this is a bug of whoever calls the VFS")
    # After a refusal this is the rollback's own sync.
    if database.refused or not database.overlay.is_written:
        return
    shared = database.shared
    if super_journal is not None and shared.journals.get(super_journal) is None:
        shared.journals.create(super_journal, must_be_new=True)
        database.foreign_super = super_journal
        raise _refuse(database, "use one VFS for all databases of a transaction")
    if not shared.stages.enter(_Stage(database, database.connection(), super_journal)):
        raise _refuse(database, "one transaction can write only one dspm database; commit them one by one")


def finish(database: Database) -> None:
    """FCNTL_COMMIT_PHASETWO: the transaction is decided here, unless its super-journal's end has decided it."""
    if database.overlay is None:
        raise UsageError("a commit without a write lock", "this is a bug of whoever calls the VFS")
    if database.refused:
        raise _refuse(database, "the transaction was refused before")
    database.publish(size_from_header=False)
    database.shared.stages.remove(database)


def publish_of(stages: Stages, super_journal: str) -> None:
    """The end of a super-journal of ours: the decision. Here the file still has to be cut to its header's size."""
    for database in stages.of_super(super_journal):
        database.publish(size_from_header=True)
        stages.remove(database)


def _refuse(database: Database, why: str) -> UsageError:
    database.refused = True
    return UsageError(why)
