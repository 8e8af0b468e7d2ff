"""Ctrl-C in the middle of a measurement: what was measured by then is reported, and the command ends as interrupted.

A figure of the rounds that were done is as good as one of all rounds, only of fewer; a round that was not done counts
for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Found = TypeVar("Found")


def measured(measurement: Callable[P, Found], *arguments: P.args, **named: P.kwargs) -> Found:
    """Measures. An interruption that leaves nothing to report says so, and what it left behind if anything."""
    try:
        return measurement(*arguments, **named)
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt("nothing was measured", *e.args) from None


def in_turn(rounds: int, one_round: Callable[[int], None]) -> dict[str, Any]:
    """Does the rounds. Interrupted behind the first, it returns `interrupted` for the report; before it raises."""
    for number in range(rounds):
        try:
            one_round(number)
        except KeyboardInterrupt:
            if number == 0:
                raise
            return {"interrupted": True}
    return {}


def end(found: dict[str, Any], done: int, asked: int, what: str = "rounds") -> None:
    """After the report: raises if the measurement was interrupted."""
    if found.get("interrupted"):
        raise KeyboardInterrupt(f"{done} of {asked} {what} were measured")
