"""How long-running work tells what it is doing, whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Whoever watches an import or an export."""

    def stage(self, what: str, total: int) -> None:
        """A new stage begins, of `total` bytes, or of no known number (0)."""

    def advance(self, done: int) -> None:
        """So many bytes of the stage are done, in all."""

    def waiting(self, why: str) -> None:
        """It waits; "": it goes on."""


class Silent:
    """Nobody watches."""

    def stage(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int) -> None:
        """Nothing."""

    def waiting(self, why: str) -> None:
        """Nothing."""
