"""Nodes that the registry hears both and that do not hear one another, as the primaries of sets report it.

A report names a member or joining node of one set that gives its primary no grants; the set goes on without it. The
pair is remembered as *cut* for longer, so that the node is not recruited again at once into sets whose primary is the
one that reported: 10 s, and twice as long, up to 5 min, each time that it comes again soon after.
"""

from __future__ import annotations

from collections.abc import Mapping

from dspm.netram.messages import MemberEntry, SetEntry
from dspm.netram.registry.backoff import Backoff

FRESH_S = 1.0
"""A report that is not repeated for so long is over; it is repeated every 250 ms."""

Pair = tuple[str, str]
"""The primary that reported, and whom."""
Suspicion = tuple[int, MemberEntry]
"""The set, and whom its primary reported."""


class Cuts:
    """All reports. Bounded by the sets and by the pairs of nodes."""

    def __init__(self) -> None:
        self._reports: dict[Suspicion, tuple[int, float]] = {}
        self._pairs: Backoff[Pair] = Backoff()

    def note(self, set_id: int, generation: int, reporter: str, suspect: MemberEntry, now: float) -> bool:
        """A report came. True when the pair is newly cut."""
        self._reports[set_id, suspect] = generation, now
        return self._pairs.note((reporter, suspect.node), now)

    def suspects(self, sets: Mapping[int, SetEntry], now: float) -> frozenset[Suspicion]:
        """Set and member of what was just reported of the generations that the sets are in."""
        self._reports = {k: (g, at) for k, (g, at) in self._reports.items() if now - at <= FRESH_S}
        return frozenset(k for k, (g, _) in self._reports.items() if k[0] in sets and sets[k[0]].generation == g)

    def pairs(self, now: float) -> frozenset[Pair]:
        """Those that are cut."""
        return self._pairs.active(now)

    def forget_reports(self) -> None:
        """Who listens was late itself."""
        self._reports.clear()
