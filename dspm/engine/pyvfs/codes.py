"""The one place where errors of the dataset become SQLite's result codes.

Rules: inside a write transaction a failed read is of the IOERR family or FULL, because SQLite rolls back for these and
leaves the transaction open for others. A failed commit is IOERR or FULL and nothing else, because only these stop the
statements that are still open in the connection.
"""

from __future__ import annotations

import enum

import apsw

from dspm.errors import (
    AccessError,
    AuthError,
    BusyError,
    ConflictError,
    DataError,
    DspmError,
    FullError,
    NotFoundError,
    ProtocolError,
    TooOldError,
)


class During(enum.Enum):
    """What was being done, and the result code of an error that has none of its own there."""

    OPEN = apsw.SQLITE_CANTOPEN
    LOCK = apsw.SQLITE_IOERR_LOCK
    UNLOCK = apsw.SQLITE_IOERR_UNLOCK
    READ = apsw.SQLITE_IOERR_READ
    WRITE = apsw.SQLITE_IOERR_WRITE
    COMMIT = apsw.SQLITE_IOERR
    SIZE = apsw.SQLITE_IOERR_FSTAT
    EXISTS = apsw.SQLITE_IOERR_ACCESS
    DELETE = apsw.SQLITE_IOERR_DELETE


_NAMED: dict[type[DspmError], int] = {
    FullError: apsw.SQLITE_FULL,
    AuthError: apsw.SQLITE_AUTH,
    AccessError: apsw.SQLITE_PERM,
    ProtocolError: apsw.SQLITE_PROTOCOL,
}
_BEGINNING = _NAMED | {
    ConflictError: apsw.SQLITE_BUSY_SNAPSHOT,
    TooOldError: apsw.SQLITE_BUSY_SNAPSHOT,
    DataError: apsw.SQLITE_IOERR_DATA,
}
_CODES: dict[During, dict[type[DspmError], int]] = {
    During.OPEN: _NAMED | {BusyError: apsw.SQLITE_BUSY},
    During.LOCK: _BEGINNING | {BusyError: apsw.SQLITE_BUSY},
    During.READ: _BEGINNING,
    During.WRITE: {FullError: apsw.SQLITE_FULL, DataError: apsw.SQLITE_IOERR_DATA},
    During.COMMIT: {FullError: apsw.SQLITE_FULL},
    During.DELETE: {NotFoundError: apsw.SQLITE_IOERR_DELETE_NOENT},
}


def code(error: BaseException, during: During) -> int:
    """The result code for an error."""
    codes = _CODES.get(during, {})
    return next((c for kind, c in codes.items() if isinstance(error, kind)), during.value)


def failure(text: str, result: int) -> apsw.Error:
    """What an entry raises, so that apsw answers that result code and the program reads that text."""
    error = apsw.exception_for(result)
    error.args = (text,)
    assert isinstance(error, apsw.Error)
    return error


def text(name: str, error: BaseException) -> str:
    """What people read about a failure of `name`, with its hint on a second line."""
    said = str(error) if isinstance(error, DspmError) else f"{type(error).__name__}: {error}"
    hint = getattr(error, "hint", "")
    return f"{name[:200]}: {said}" + (f"\nhint: {hint}" if hint else "")


def is_ordinary(result: int) -> bool:
    """True for what a program meets in daily work and retries: not worth a line in SQLite's log."""
    return result & 0xFF == apsw.SQLITE_BUSY or result == apsw.SQLITE_IOERR_DELETE_NOENT
