"""What the registry has heard of a node, and in which way it is silent. Times are the caller's.

A node is *gone* when its address refuses connections: its process is dead. It is *unreachable* when a connect gets no
answer, and *frozen* when it accepts connections and answers nothing: stopped, or far too slow. *Silent* is what has
not been told apart yet; nothing is decided on it. Who answers and does not take the newest view over (its disk may be
full) is *behind*. Who says that its disk is full is given nothing more; when it has refused records for that for a
while, it *refuses*.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BEHIND_S = 2.0
"""A node that answers and has not taken the newest view over for so long counts as not there."""

REFUSES_S = 2.0
"""A member whose disk is full and that takes no records for so long is done without, where another node is there."""


class Way(StrEnum):
    """How a node answers, or does not."""

    HEARD = "answers"
    SILENT = "is silent"
    GONE = "refuses connections"
    UNREACHABLE = "cannot be reached"
    FROZEN = "accepts connections and does not answer"


@dataclass(frozen=True, slots=True)
class Heard:
    """A node at one moment. `store` is that of its last answer, None before the first; `former` those before it; `boot`
    counts its starts; `full` is why its disk takes no more, `refuses_s` for how long it has taken no records."""

    store: int | None
    way: Way = Way.HEARD
    silent_s: float = 0.0
    former: frozenset[int] = frozenset()
    behind_s: float = 0.0
    boot: int = 0
    full: str = ""
    refuses_s: float = 0.0

    @property
    def refuses(self) -> bool:
        """True when no commit gets past it, for want of room on its disk."""
        return bool(self.full) and self.refuses_s > REFUSES_S

    @property
    def is_behind(self) -> bool:
        """True when it answers, and cannot take over what is decided."""
        return self.way is Way.HEARD and self.behind_s > BEHIND_S

    @property
    def is_there(self) -> bool:
        """True when something can be given to it."""
        return self.way is Way.HEARD and self.store is not None and not self.is_behind

    def is_suspect(self, after_s: float) -> bool:
        """True when it counts as failed. One that is gone does at once."""
        if self.way is Way.GONE:
            return True
        return self.way in (Way.UNREACHABLE, Way.FROZEN) and self.silent_s >= after_s


class Pulse:
    """The silence clock of one node."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._way = Way.SILENT
        self._store: int | None = None
        self._former: frozenset[int] = frozenset()
        self._view = 0
        self._boot = 0
        self._behind: float | None = None
        self._room = "", 0.0

    def at(self, now: float) -> Heard:
        """The node as it is now."""
        behind_s = 0.0 if self._behind is None else max(0.0, now - self._behind)
        silent_s = max(0.0, now - self._since)
        return Heard(self._store, self._way, silent_s, self._former, behind_s, self._boot, *self._room)

    def heard(
        self, now: float, store: int, former: frozenset[int], view: int = 0, newest: int = 0, boot: int = 0
    ) -> bool:
        """It answered, with that version of the view. True when that is news."""
        if view >= newest:
            self._behind = None
        elif self._behind is None or view != self._view:
            self._behind = now
        self._view, self._boot = view, boot
        news = (self._way, self._store) != (Way.HEARD, store)
        self._since, self._way, self._store, self._former = now, Way.HEARD, store, former
        return news

    def room(self, full: str, refuses_s: float) -> bool:
        """What it said of its disk in its last answer. True when it is full now and was not, or the other way round."""
        news = bool(full) != bool(self._room[0])
        self._room = full, refuses_s
        return news

    def lost(self, way: Way) -> bool:
        """It did not answer. True when that is news."""
        news = self._way is not way
        self._way = way
        return news

    def forget(self, now: float) -> None:
        """The one who listens was late itself: how long the node was silent, and why, is not known."""
        self._since, self._way, self._behind, self._room = now, Way.SILENT, None, ("", 0.0)
