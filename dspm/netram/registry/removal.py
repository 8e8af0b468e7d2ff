"""A dataset is removed when it has come to rest: no writer is let in, and what it decided is resolved everywhere.

Its entry carries a mark while that is waited for. The set's primary says it of this mark and of its generation; in
that generation nobody else lets writers in, and the primary keeps to it for as long as it knows the mark. So what is
true when it says it is true when the dataset is removed, if the record of the set is the same then. The registry keeps
marks in memory only: one that starts anew has given all of them up. Why: docs/decisions/0018-removed-and-unknown.md.
"""

from __future__ import annotations

import secrets

import msgspec

from dspm.errors import ConflictError, UnavailableError
from dspm.netram.messages import DatasetEntry, Quiet, SetEntry

QUIET_TIMEOUT_S = 3.0
"""How long a removal waits for the primary: another one takes over from one that is dead or stopped within that."""


def marked(entry: DatasetEntry) -> DatasetEntry:
    """The entry with a mark that no other try to remove a dataset has."""
    return msgspec.structs.replace(entry, removing=entry.removing or secrets.randbits(64) or 1)


def unmarked(entry: DatasetEntry) -> DatasetEntry:
    """The entry of a dataset that stays."""
    return msgspec.structs.replace(entry, removing=0)


def check_quiet(entry: DatasetEntry | None, group_set: SetEntry, node: str, said: Quiet) -> None:
    """Raises ConflictError when that is not the word that the removal waits for."""
    if entry is None or not entry.removing or entry.removing != said.removing:
        raise ConflictError("this removal of the dataset was given up, or is done")
    now = group_set.generation, group_set.state, group_set.primary
    if entry.set != group_set.id or now != (said.generation, "active", node):
        raise ConflictError(f"{node} is not the primary of the dataset's set in generation {said.generation}")


def not_quiet(name: str) -> UnavailableError:
    """The error for a dataset that did not come to rest."""
    return UnavailableError(
        f"{name[:80]!r} cannot be removed now: the primary of its replica set does not serve, or its newest commit is"
        " of a transaction over several databases of which one has not heard of it yet. Start the nodes that are down,"
        " or remove those databases first. `dspm rm --accept-loss` removes it anyway: such a transaction may then be in"
        " some of its databases only"
    )
