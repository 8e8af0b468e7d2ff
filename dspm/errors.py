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


_BY_CODE: dict[int, type[DspmError]] = {
    1: DspmError,
    2: UsageError,
    3: UnavailableError,
    4: DataError,
    5: BusyError,
    6: ConflictError,
    7: TooOldError,
    8: OutcomeUnknownError,
}


def from_code(code: int, message: str, hint: str = "") -> DspmError:
    """The error for a code of the C ABI (`dspm.h`, DSPM_E_*)."""
    return _BY_CODE.get(code, DspmError)(message, hint)
