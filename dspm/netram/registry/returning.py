"""Members that came back without the memory that they are recorded with, and when their set may go on with them.

A set names the store id that each member had. A node that lost its memory has another one, and names as its former ones
those whose synced log it holds wholly; it may have lost its memory several times, and been started in between, unseen.
One whose recorded name is not among them is known, shown and given new datasets, but never counted as holding the set.

Rules, for members of the last active set that it knows by a former name:
- durability disk: what was acknowledged is in the synced log, so each of them goes on; one whose log is damaged keeps
  its place under the store id that it no longer has, and is dropped like any other member that is lost.
- durability memory: only when every member of the set is back and none has its memory. The set then goes on with the
  longest log, and what was committed within about `flush_interval` before the loss may be missing: it is reported.
  Each such loss raises `history` in the set's record.
- otherwise another member still holds what this one lost, and it must join again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dspm.netram.messages import Durability, MemberEntry, SetEntry
from dspm.netram.registry.pulse import Heard, Way


@dataclass(frozen=True, slots=True)
class Return:
    """A set with its members' new store ids. `window` is true when acknowledged commits may be missing."""

    entry: SetEntry
    window: bool


def readmit(entry: SetEntry, durability: Durability, heard: Mapping[str, Heard]) -> Return | None:
    """The set as it goes on with members that lost their memory, or None when it must not, or need not."""
    lost = [m for m in entry.last_active if _has_lost(m, heard.get(m.node))]
    back = {m.node: heard[m.node] for m in lost if m.store in heard[m.node].former}
    window = durability != "disk"
    if not back or (window and len(back) < len(entry.last_active)):
        return None
    known = {n: h.store for n, h in back.items() if h.store is not None}
    members = [MemberEntry(m.node, known.get(m.node, m.store)) for m in entry.last_active]
    again = {"members": members, "last_active": members, "history": entry.history + window}
    if entry.state == "active" and not entry.joining:
        return Return(msgspec.structs.replace(entry, **again), window)
    return Return(_anew(entry, again), window)


def _has_lost(member: MemberEntry, heard: Heard | None) -> bool:
    """It answers, under another store id."""
    return heard is not None and heard.way is Way.HEARD and heard.store not in (None, member.store)


def _anew(entry: SetEntry, again: dict[str, Any]) -> SetEntry:
    """In the middle of a change the members of before it begin a generation of their own; who joined begins again."""
    nodes = [m.node for m in again["members"]]
    return msgspec.structs.replace(
        entry,
        **again,
        generation=entry.generation + 1,
        state="activating",
        primary=entry.primary if entry.primary in nodes else nodes[0],
        joining=[],
        dropped=[m for m in entry.dropped if m.node not in nodes],
    )
