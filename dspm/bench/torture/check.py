"""The checker: everything that a history shows to be wrong.

Usable on any history of the format of `history`, with or without faults in it; it needs no cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from dspm.bench.torture.bank import Bank
from dspm.bench.torture.history import OK, SCAN, TRANSFER, TXN, Final, History, Operation
from dspm.bench.torture.lists import Lists
from dspm.bench.torture.problem import LOST, Problem


class Verdict(msgspec.Struct):
    """What a history says. Counts are of transactions that write."""

    acknowledged: int
    unknown: int
    failed: int
    read: int
    lost: int
    stumps: int
    problems: list[Problem]

    @property
    def sound(self) -> bool:
        """Nothing is lost, nothing is wrong."""
        return not self.problems


def check(history: History) -> Verdict:
    """Checks all databases of a history."""
    problems: list[Problem] = []
    counts: Counter[str] = Counter()
    setups = history.setups()
    if not setups:
        problems.append(Problem("no-setup", "", "the history does not say how its databases were made"))
    for database, made in setups.items():
        operations = history.operations(database)
        counts.update(o.outcome if writes(o) else "read" for o in operations if writes(o) or o.outcome == OK)
        problems += _database(database, made, operations, history.finals(database))
    return Verdict(
        acknowledged=counts["ok"],
        unknown=counts["info"],
        failed=counts["fail"],
        read=counts["read"],
        lost=sum(p.kind == LOST for p in problems),
        stumps=history.stumps,
        problems=problems,
    )


def writes(o: Operation) -> bool:
    """True for a transaction that changes something."""
    if o.invoked.operation == TXN:
        return any(step[0] == "append" for step in o.invoked.value)
    return o.invoked.operation == TRANSFER


def _database(
    database: str, made: dict[str, Any], operations: list[Operation], finals: list[Final]
) -> Iterator[Problem]:
    for o in operations:
        if _shows_damage(o):
            yield Problem("damage", database, f"{o}: {o.done.error or o.value if o.done else ''}"[:500])
    if not finals:
        yield Problem("no-final", database, "nobody read the final state: what was acknowledged may be missing")
        return
    for final in finals:
        if final.integrity != "ok":
            yield Problem("damage", database, f"{final.process}: integrity_check says {final.integrity[:300]}")
        if final.tables != finals[0].tables:
            yield Problem("copies-differ", database, f"{final.process} and {finals[0].process} found other rows")
    operations = [o for o in operations if o.invoked.operation != SCAN]
    if made["workload"] == "bank":
        yield from Bank(database, made, operations, finals[0]).problems()
    else:
        yield from Lists(database, operations, finals[0]).problems()


def _shows_damage(o: Operation) -> bool:
    """SQLite found wrong bytes, which must never be served; or damage was found and no other copy answered a scan."""
    said = o.done.error if o.done is not None else ""
    if o.invoked.operation != SCAN:
        return "CorruptError" in said
    return (o.outcome == OK and o.value != "ok") or "CorruptError" in said or _IOERR_DATA in said


_IOERR_DATA = f" {10 | 32 << 8}:"
"""SQLITE_IOERR_DATA in an operation's error."""
