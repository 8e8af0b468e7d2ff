"""Checks a history of transfers against the log of them that the database itself keeps.

Each transfer inserts a row whose number `seq` is its place in the order of all, and each read says after which of them
it was. So the order needs no search: the history is strictly serializable if the log holds every acknowledged transfer
once and no failed one, every read shows exactly the balances after its `seq`, and places agree with real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspm.bench.torture.history import FAIL, OK, READ, TRANSFER, Final, Operation
from dspm.bench.torture.problem import LOST, Problem

Row = list[Any]


class Bank:
    """One database's history."""

    def __init__(self, database: str, made: dict[str, Any], operations: list[Operation], final: Final) -> None:
        self._database = database
        self._accounts = int(made["accounts"])
        self._start = int(made["balance"])
        self._transfers = {o.invoked.value["id"]: o for o in operations if o.invoked.operation == TRANSFER}
        self._reads = [o for o in operations if o.invoked.operation == READ and o.outcome == OK]
        self._log: list[Row] = final.tables.get("transfer", [])
        self._balances = [b for _, b in final.tables.get("account", [])]
        self._seq: dict[str, int] = {row[1]: row[0] for row in reversed(self._log)}

    def problems(self) -> Iterator[Problem]:
        """All that is wrong."""
        yield from self._check_log()
        yield from self._check_acknowledged()
        yield from self._check_reads()
        yield from self._check_time()

    def _wrong(self, kind: str, detail: str) -> Problem:
        return Problem(kind, self._database, detail)

    def _check_log(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for place, (seq, name, source, target, amount) in enumerate(self._log, 1):
            if seq != place:
                yield self._wrong("gap", f"transfer {seq} stands at place {place} of the log")
                return
            if name in seen:
                yield self._wrong("twice", f"transfer {name} is there again, as {seq}")
            seen.add(name)
            asked = self._transfers.get(name)
            if asked is None:
                yield self._wrong("phantom", f"transfer {seq}, {name}, was never asked for")
                continue
            value = asked.invoked.value
            if (source, target, amount) != (value["from"], value["to"], value["amount"]):
                yield self._wrong("altered", f"transfer {seq} is {source, target, amount}, asked was {value}")
            if asked.outcome == FAIL:
                said = asked.done.error if asked.done else ""
                yield self._wrong("aborted", f"transfer {name} failed ({said}) and is there, as {seq}")

    def _check_acknowledged(self) -> Iterator[Problem]:
        for name, asked in self._transfers.items():
            if asked.outcome != OK:
                continue
            if name not in self._seq:
                yield self._wrong(LOST, f"transfer {name} was acknowledged ({asked}) and is not there")
            elif self._seq[name] != asked.value["seq"]:
                yield self._wrong("moved", f"transfer {name} was {asked.value['seq']} and is {self._seq[name]}")

    def _check_reads(self) -> Iterator[Problem]:
        states = [*((o.value["seq"], o.value["balances"], str(o)) for o in self._reads)]
        states.append((len(self._log), self._balances, "the final state"))
        balances, done = [self._start] * self._accounts, 0
        for seq, seen, who in sorted(states, key=lambda s: s[0]):
            for _, _, source, target, amount in self._log[done:seq]:
                balances[source] -= amount
                balances[target] += amount
            done = max(done, seq)
            if sum(seen) != self._start * self._accounts:
                yield self._wrong("sum", f"{who}: the balances {seen} make {sum(seen)}")
            elif seq > len(self._log):
                yield self._wrong(LOST, f"{who} saw transfer {seq}; the last one now is {len(self._log)}")
            elif seen != balances:
                yield self._wrong("no-state", f"{who}: {seen} is not the state after transfer {seq}, {balances}")

    def _check_time(self) -> Iterator[Problem]:
        """Nothing that was asked later stands before what had been acknowledged."""
        placed = [(o, self._seq[name], True) for name, o in self._transfers.items() if name in self._seq]
        placed += [(o, int(o.value["seq"]), False) for o in self._reads]
        ends = sorted((o.end, seq, str(o)) for o, seq, _ in placed if o.end is not None)
        newest, who, at = 0, "", 0  # places begin at 1
        for o, seq, writes in sorted(placed, key=lambda p: p[0].start):
            while at < len(ends) and ends[at][0] < o.start:
                if ends[at][1] > newest:
                    newest, who = ends[at][1:]
                at += 1
            if seq < newest or (writes and seq == newest):
                yield self._wrong("stale", f"{o} is at {seq}, and {who} at {newest} had been acknowledged before it")
