"""`xFileControl` of a database, and the PRAGMAs that the VFS answers: all from memory, none waits for a node, but for a
new `dspm_as_of`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import apsw

from dspm.engine.pyvfs import attach, codes
from dspm.errors import DspmError

if TYPE_CHECKING:
    from dspm.engine.pyvfs.database import Database

_PDB = 30
"""SQLITE_FCNTL_PDB, which SQLite does not document: where the connection is kept that uses the file."""

_HINTS = (apsw.SQLITE_FCNTL_SIZE_HINT, apsw.SQLITE_FCNTL_CHUNK_SIZE, apsw.SQLITE_FCNTL_OVERWRITE)


def control(database: Database, operation: int, argument: int) -> bool:
    """Answers one file control, whose argument is an address. False where SQLite itself is to answer."""
    if operation == apsw.SQLITE_FCNTL_SYNC:
        attach.stage(database, ctypes.string_at(argument).decode() if argument else None)
    elif operation == apsw.SQLITE_FCNTL_COMMIT_PHASETWO:
        attach.finish(database)
    elif operation == _PDB:
        database.connection_at = argument
    elif operation == apsw.SQLITE_FCNTL_PRAGMA:
        return _answer_pragma(database, apsw.VFSFcntlPragma(argument))
    elif operation == apsw.SQLITE_FCNTL_LOCKSTATE:
        ctypes.c_int.from_address(argument).value = database.level
    elif operation in (apsw.SQLITE_FCNTL_HAS_MOVED, apsw.SQLITE_FCNTL_LAST_ERRNO):
        # A dataset is not a file that someone could rename under an open database.
        ctypes.c_int.from_address(argument).value = 0
    else:
        return operation in _HINTS
    return True


def _answer_pragma(database: Database, pragma: apsw.VFSFcntlPragma) -> bool:
    try:
        answer = _pragma(database, pragma.name.lower(), pragma.value)
    except apsw.Error as e:
        pragma.result = str(e)
        raise
    if answer is None:
        return False
    pragma.result = answer
    return True


def _pragma(database: Database, name: str, value: str | None) -> str | None:
    """What a PRAGMA answers in one cell; None where SQLite itself is to answer."""
    match name:
        case "journal_mode" if value is not None and value.lower() == "wal":
            # SQLite's documented way to refuse: answer the mode that stays. Readers never block writers here anyway.
            return "delete"
        case "locking_mode":
            return _locking_mode(database, value)
        case "dspm_status":
            return database.dataset.status_json()
        case "dspm_lsn":
            return str(database.dataset.status().lsn if database.lsn is None else database.lsn)
        case "dspm_durability":
            return _durability(database, value)
        case "dspm_error":
            return database.last_error or database.shared.last_error
        case "dspm_as_of":
            return _as_of(database, value)
    return None


def _locking_mode(database: Database, value: str | None) -> str:
    """Not passed on: SQLite's own exclusive mode would keep its locks for ever, stop raising the change counter, and
    never look at other processes' commits again.
    """
    if value is not None and value.lower() in ("exclusive", "normal"):
        database.set_exclusive(value.lower() == "exclusive")
    return "exclusive" if database.exclusive else "normal"


def _as_of(database: Database, value: str | None) -> str:
    if value is not None:
        try:
            database.set_as_of(value)
        except DspmError as e:
            raise codes.failure(codes.text(database.name, e), apsw.SQLITE_ERROR) from e
    return str(database.as_of)


def _durability(database: Database, value: str | None) -> str:
    durability = database.dataset.status().durability
    if value is not None and value.lower() != durability:
        text = f"the durability of a dataset is fixed when it is made; this one has '{durability}'"
        raise codes.failure(text, apsw.SQLITE_ERROR)
    return durability
