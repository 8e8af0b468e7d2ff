"""Members that came back without the memory that they are recorded with, and when their set may go on with them.

A set names the store id that each member had. A node that lost its memory has another one, and names as its former ones
those whose synced log it holds wholly; it may have lost its memory several times, and been started in between, unseen.
One whose recorded name is not among them is known, shown and given new datasets, but never counted as holding the set.

Rules, for members that the set knows by a former name:
- durability disk: what was acknowledged is in the synced log, so each of them goes on.
- durability memory: only when every member of the set is back and none has its memory. The set then goes on with the
  longest log, and what was committed within about `flush_interval` before the loss may be missing: it is reported.
- otherwise the set waits: another member still holds what this one lost, and it must join again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from dspm.netram.messages import Durability, MemberEntry, SetEntry


@dataclass(frozen=True, slots=True)
class Memory:
    """What an answering node remembers: its store id, and those before whose synced log it holds wholly."""

    store: int
    former: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Return:
    """A set with its members' new store ids. `window` is true when acknowledged commits may be missing."""

    entry: SetEntry
    window: bool


def readmit(entry: SetEntry, durability: Durability, memories: Mapping[str, Memory]) -> Return | None:
    """The set as it goes on with members that lost their memory, or None when it must not, or need not."""
    lost = [m for m in entry.members if m.node in memories and memories[m.node].store != m.store]
    if not lost or entry.state != "active" or entry.joining:
        return None
    if any(m.store not in memories[m.node].former for m in lost):
        return None
    window = durability != "disk"
    if window and len(lost) < len(entry.members):
        return None
    known = {m.node: memories[m.node].store for m in lost}
    members = [MemberEntry(m.node, known.get(m.node, m.store)) for m in entry.members]
    return Return(msgspec.structs.replace(entry, members=members, last_active=members), window)
