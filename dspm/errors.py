"""The error taxonomy of the Python side, one class an exit status.

Every error carries one sentence that says what happened and what was expected, and a hint that says what to do.
The Rust side maps its own taxonomy (crates/proto/src/error.rs) onto the same classes through :func:`from_code`.
"""

from __future__ import annotations


class DspmError(Exception):
    """Something failed. `hint` says what to do about it; `exit_code` is the status of the command line."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DspmError):
    """Wrong arguments, or a configuration that cannot be used."""

    exit_code = 2


class UnavailableError(DspmError):
    """No cluster is configured, or none of its nodes answers in time."""

    exit_code = 3


class DataError(DspmError):
    """A file or a message is damaged or foreign."""

    exit_code = 4


class OutcomeUnknownError(UnavailableError):
    """A commit was sent and nobody could be asked in time whether it happened. It can be asked later."""


class TooOldError(DspmError):
    """The snapshot asked for is no longer kept (`history`, `history_max`); begin a new one."""


class ConflictError(DspmError):
    """Another commit came first; run the transaction again."""


class BusyError(DspmError):
    """Another process holds the write lease inside a transaction; try again."""


class FullError(DspmError):
    """A limit was reached: memory, disk, size of a message."""


class AuthError(DspmError):
    """The cluster's key is wrong."""


class AccessError(DspmError):
    """The operating system said no."""


class ProtocolError(DspmError):
    """The peer speaks another version of dspm, or none."""


class NotFoundError(DspmError):
    """There is no dataset of that name."""


class RefusedError(DspmError):
    """A node refused the request; the message says why."""


_BY_CODE: dict[int, type[DspmError]] = {
    1: DspmError,
    2: UsageError,
    3: UnavailableError,
    4: DataError,
    5: BusyError,
    6: ConflictError,
    7: TooOldError,
    8: OutcomeUnknownError,
    9: FullError,
    10: AuthError,
    11: AccessError,
    12: ProtocolError,
    13: NotFoundError,
    14: RefusedError,
}

_HINTS: dict[int, str] = {
    3: "see `dspm status`; `dspm up --dir D` starts what is missing",
    5: "set a busy timeout, or try again",
    6: "roll back and run the transaction again",
    7: "begin a new transaction, or read a newer commit; a database made with more `history` keeps more",
    8: "read the rows back once the cluster answers again before repeating the transaction",
    9: "add memory or disk to the nodes, or commit smaller transactions",
    10: "use the cluster's own key file (`key_file` in the config)",
    12: "run the same dspm version on clients and nodes",
    13: "`dspm ls` lists the datasets",
    14: "see `dspm status`",
}


def from_code(code: int, message: str, hint: str = "") -> DspmError:
    """The error for a code of the wire and of the C ABI (`dspm.h`, DSPM_E_*)."""
    return _BY_CODE.get(code, DspmError)(message, hint or _HINTS.get(code, ""))


def code_of(error: DspmError) -> int:
    """The code that carries this error over the wire."""
    return next((code for code, kind in _BY_CODE.items() if kind is type(error)), 1)
