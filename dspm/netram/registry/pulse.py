"""What the registry has heard of a node, and in which way it is silent. Times are the caller's.

A node is *gone* when its address refuses connections: its process is dead. It is *unreachable* when a connect gets no
answer, and *frozen* when it accepts connections and answers nothing: stopped, or far too slow. *Silent* is what has
not been told apart yet; nothing is decided on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Way(StrEnum):
    """How a node answers, or does not."""

    HEARD = "answers"
    SILENT = "is silent"
    GONE = "refuses connections"
    UNREACHABLE = "cannot be reached"
    FROZEN = "accepts connections and does not answer"


@dataclass(frozen=True, slots=True)
class Heard:
    """A node at one moment. `store` is that of its last answer, None before the first; `former` those before it."""

    store: int | None
    way: Way = Way.HEARD
    silent_s: float = 0.0
    former: frozenset[int] = frozenset()

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

    def at(self, now: float) -> Heard:
        """The node as it is now."""
        return Heard(self._store, self._way, max(0.0, now - self._since), self._former)

    def heard(self, now: float, store: int, former: frozenset[int]) -> bool:
        """It answered. True when that is news."""
        news = (self._way, self._store) != (Way.HEARD, store)
        self._since, self._way, self._store, self._former = now, Way.HEARD, store, former
        return news

    def lost(self, way: Way) -> bool:
        """It did not answer. True when that is news."""
        news = self._way is not way
        self._way = way
        return news

    def forget(self, now: float) -> None:
        """The one who listens was late itself: how long the node was silent, and why, is not known."""
        self._since, self._way = now, Way.SILENT
