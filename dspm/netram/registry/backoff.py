"""What is not tried again at once after it failed: for 10 s, and twice as long, up to 5 min, each time that it fails
again soon after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

BACKOFF_S = 10.0
BACKOFF_MAX_S = 300.0
AGAIN_S = 60.0
"""What fails again within so long, or as long as it was left alone, counts as failed again."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    length_s: float

    @property
    def forgotten(self) -> float:
        return self.until + max(AGAIN_S, self.length_s)


class Backoff(Generic[K]):
    """The pauses, by what failed."""

    def __init__(self) -> None:
        self._pauses: dict[K, _Pause] = {}

    def note(self, key: K, now: float) -> bool:
        """It failed. True when a pause begins; within one nothing changes."""
        known = self._pauses.get(key)
        if known is not None and now < known.until:
            return False
        self._pauses = {k: p for k, p in self._pauses.items() if now < p.forgotten}
        known = self._pauses.get(key)
        length_s = BACKOFF_S if known is None else min(BACKOFF_MAX_S, 2 * known.length_s)
        self._pauses[key] = _Pause(now + length_s, length_s)
        return True

    def end(self, key: K, now: float) -> None:
        """A pause ends early. How long it was to be stays known for a while."""
        known = self._pauses.get(key)
        if known is not None and now < known.until:
            self._pauses[key] = _Pause(now, known.length_s)

    def active(self, now: float) -> frozenset[K]:
        """What is left alone now."""
        return frozenset(k for k, p in self._pauses.items() if now < p.until)
