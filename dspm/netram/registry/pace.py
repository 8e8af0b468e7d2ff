"""How often one set changes: one change at a time, the next 250 ms later at the earliest; only while changes of that
set fail is the pause doubled, up to 10 s. A change failed when its activation was not through before the next one.

An activation is an outage. One that waits for a joining node which never gets there (it has no room, or the primary
cannot reach it) is given up after a pause, so the pause before nodes are added again grows faster: the set serves most
of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PAUSE_S = 0.25
PAUSE_MAX_S = 10.0
ADD_MAX_S = 80.0
ACTIVATION_S = 2.0
"""An activation that takes longer is given up."""
GRACE_S = 1.0
"""After a start of the registry, and when the first member of a set comes back of which none was left, the others have
this long to be heard: a cluster that starts is no reason to make copies anew."""
_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one set: when it changed last, how many changes in a row failed, and until when none is made."""

    changed: float
    failures: int = 0
    held: float = float("-inf")

    @classmethod
    def begin(cls, now: float) -> Pace:
        """Of a set that a starting registry finds in its state."""
        return cls(changed=now, held=now + GRACE_S)

    @property
    def _pause_s(self) -> float:
        return min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(self.failures, _DOUBLINGS))

    def may_change(self, now: float) -> bool:
        """Whether the set may change at all."""
        return now >= self.held and now - self.changed >= self._pause_s

    def may_add(self, now: float) -> bool:
        """Whether nodes may join: four times later after each change in a row that failed."""
        return now >= self.held and now - self.changed >= min(
            ADD_MAX_S, PAUSE_S * 4.0 ** min(self.failures, _DOUBLINGS)
        )

    def may_remove(self, now: float) -> bool:
        """Whether an active set may give up a member: what failed before was to add one."""
        return now >= self.held and now - self.changed >= PAUSE_S

    def is_stuck(self, now: float) -> bool:
        """Whether an activation that goes on has failed."""
        return now >= self.held and now - self.changed >= max(ACTIVATION_S, self._pause_s)

    def after_change(self, now: float, failed: bool) -> Pace:
        """`failed`: the change before it was not activated."""
        return Pace(now, self.failures + failed, self.held)

    def after_success(self) -> Pace:
        """The set is active with all that it was to have."""
        return replace(self, failures=0)

    def hold(self, until: float) -> Pace:
        """Nothing before then."""
        return replace(self, held=max(self.held, until))
