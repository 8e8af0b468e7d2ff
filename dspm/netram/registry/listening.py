"""A registry that starts listens to the nodes before it decides anything.

Its state may be an old one: a backup that was put back. A node that knows better says so with its first answer, or when
it is told the state's view; so nothing is decided before every node of the state has this view or was found to be ahead
of it, or `LISTEN_S` have passed. A node that comes later still ends all decisions (`Catalog.ahead`).
"""

from __future__ import annotations

from collections.abc import Iterable

LISTEN_S = 3.0
"""How long nodes that do not answer are waited for. A member that died together with the registry is replaced so much
later."""


class Listening:
    """The nodes that are not heard yet."""

    def __init__(self, nodes: Iterable[str], now: float) -> None:
        self.missing = set(nodes)
        self._until = now + LISTEN_S

    def heard(self, node: str) -> None:
        """It has the view that this state made, or is ahead of it."""
        self.missing.discard(node)

    def give_up(self, now: float) -> list[str]:
        """The nodes that have not been heard in time, which are waited for no longer; none before that."""
        if now < self._until or not self.missing:
            return []
        late, self.missing = sorted(self.missing), set()
        return late
