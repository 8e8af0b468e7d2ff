"""Transactions over several databases: those in dspm are one commit.

SQLite commits several databases in one of two ways. With a super-journal, deleting that is the decision, and errors
after it are ignored: so the databases are published when their super-journal is deleted, where an error still stops the
transaction. Without one (synchronous=OFF, journals in memory, a `:memory:` main) it says SYNC to each, then PHASETWO to
each: all that the connection has staged are published at the first PHASETWO, and the later ones find it done. In both
cases SQLite has still to cut files to their sizes, which their headers tell.

Invariants: what one connection stages between its SYNCs and its decision is one transaction. A database whose publish
failed is refused until its reservation ends: what the rollback writes is never published.

Refused at FCNTL_SYNC, where SQLite rolls all of them back: a database whose super-journal another VFS keeps, since that
one decides without us. SQLite, rolling back, replays a journal only if the super-journal that it names exists: for a
refused foreign one an empty stand-in is kept until the transaction is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dspm.engine.pyvfs.publish import publish
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
    """The written databases whose transaction has begun to commit, in the order of their SYNCs."""

    def __init__(self) -> None:
        self._stages: list[_Stage] = []
        self._lock = threading.Lock()

    def enter(self, stage: _Stage) -> None:
        """One more; a database is there once."""
        with self._lock:
            self._stages = [s for s in self._stages if s.database is not stage.database]
            self._stages.append(stage)

    def remove(self, database: Database) -> None:
        """Its transaction is over."""
        with self._lock:
            self._stages = [s for s in self._stages if s.database is not database]

    def remove_of(self, connection: int) -> None:
        """What a connection that begins to write has staged is of a transaction that failed, and could not be rolled
        back yet.
        """
        with self._lock:
            self._stages = [s for s in self._stages if not connection or s.connection != connection]

    def of_super(self, name: str) -> list[Database]:
        """The databases that wait for that super-journal's end."""
        with self._lock:
            return [s.database for s in self._stages if s.super_journal == name]

    def of_connection(self, connection: int) -> list[Database]:
        """The databases of a connection that wait for the first PHASETWO."""
        with self._lock:
            waiting = [s for s in self._stages if s.super_journal is None]
            return [s.database for s in waiting if connection and s.connection == connection]


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
    shared.stages.enter(_Stage(database, database.connection(), super_journal))


def finish(database: Database) -> None:
    """FCNTL_COMMIT_PHASETWO: the transaction is decided here, unless its super-journal's end or an earlier database of
    the connection has decided it.
    """
    if database.overlay is None:
        raise UsageError("a commit without a write lock", "this is a bug of whoever calls the VFS")
    if database.refused:
        raise _refuse(database, "the transaction was refused before")
    if database.decided and not database.overlay.is_written:
        return
    staged = database.shared.stages.of_connection(database.connection())
    if database not in staged:
        staged.insert(0, database)
    _decide([(each, each is not database) for each in staged])


def publish_of(stages: Stages, super_journal: str) -> None:
    """The end of a super-journal of ours: the decision."""
    _decide([(database, True) for database in stages.of_super(super_journal)])


def _decide(group: list[tuple[Database, bool]]) -> None:
    """Publishes all of them, or none; each with whether its header tells the size. The first is the decider."""
    done = False
    try:
        publish(group)
        done = True
    finally:
        for database, _ in group:
            database.decided, database.refused = done, not done
            database.shared.stages.remove(database)


def _refuse(database: Database, why: str) -> UsageError:
    database.refused = True
    return UsageError(why)
