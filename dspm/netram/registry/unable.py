"""Nodes that said that they cannot join a set: they have no room for it.

Such a node holds up the commits of the set, so it is let go at once, and not taken into that set again for a while
(:mod:`~dspm.netram.registry.backoff`), or until it was started again: with more memory, it may be.
"""

from __future__ import annotations

from collections.abc import Mapping

from dspm.netram.registry.backoff import Backoff
from dspm.netram.registry.pulse import Heard

Place = tuple[int, str]
"""The set, and the node that has no room for it."""


class Unable:
    """What was said. Bounded by sets and nodes."""

    def __init__(self) -> None:
        self._pauses: Backoff[Place] = Backoff()
        self._boots: dict[Place, int] = {}

    def note(self, set_id: int, node: str, heard: Heard, now: float) -> bool:
        """It said so. True when that is news."""
        place = set_id, node
        if place in self.places({node: heard}, now):
            return False
        self._pauses.end(place, now)
        self._boots = {p: b for p, b in self._boots.items() if p in self._pauses.active(now)}
        self._boots[place] = heard.boot
        self._pauses.note(place, now)
        return True

    def places(self, heard: Mapping[str, Heard], now: float) -> frozenset[Place]:
        """Who is not to join what, while it is the same process that said so."""
        if not self._boots:
            return frozenset()
        here = (p for p in self._pauses.active(now) if p[1] in heard)
        return frozenset(p for p in here if heard[p[1]].boot == self._boots.get(p))
