"""Checks a history of list-append transactions, as Elle does: the order of each list gives the order of its writers.

The final state shows each list whole. From it and from what transactions read follow the dependencies between them
(`cycles`); what cannot be explained by any order is told apart by name before: values that are lost, that failed
(G1a), that stand twice, that are from the middle of a transaction (G1b), that contradict the order of the list, or the
transaction's own steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspm.bench.torture import cycles
from dspm.bench.torture.history import FAIL, OK, Final, Operation
from dspm.bench.torture.problem import LOST, Problem

Step = list[Any]


@dataclass(frozen=True, slots=True)
class _Append:
    """Who appended a value; `last`: nothing to the same list behind it."""

    operation: int
    key: int
    last: bool


class Lists:
    """One database's history."""

    def __init__(self, database: str, operations: list[Operation], final: Final) -> None:
        self._database = database
        self._operations = operations
        self._order: dict[int, list[int]] = {}
        for key, value in final.tables.get("entry", []):
            self._order.setdefault(key, []).append(value)
        self._appends: dict[int, _Append] = {}
        for number, o in enumerate(operations):
            of_key: dict[int, int] = {}
            for kind, key, value in o.invoked.value:
                if kind == "append":
                    if key in of_key:
                        self._appends[of_key[key]] = _Append(number, key, False)
                    self._appends[value] = _Append(number, key, True)
                    of_key[key] = value

    def problems(self) -> Iterator[Problem]:
        """All that is wrong."""
        yield from self._check_final()
        found = list(self._check_reads())
        yield from found
        if not found:  # without an order of the lists there are no dependencies
            yield from self._check_cycles()

    def _wrong(self, kind: str, detail: str) -> Problem:
        return Problem(kind, self._database, detail)

    def _check_final(self) -> Iterator[Problem]:
        there: set[int] = set()
        for key, values in self._order.items():
            for value in values:
                yield from self._check_value(key, value, "the final state")
                if value in there:
                    yield self._wrong("twice", f"the final state has {value} twice, in list {key}")
                there.add(value)
        for value, append in self._appends.items():
            asked = self._operations[append.operation]
            if asked.outcome == OK and value not in there:
                yield self._wrong(LOST, f"{value} in list {append.key} was acknowledged ({asked}) and is not there")
        for number, o in enumerate(self._operations):
            own = [v for kind, _, v in o.invoked.value if kind == "append"]
            if own and 0 < sum(v in there for v in own) < len(own) and o.outcome != OK:
                yield self._wrong("torn", f"transaction {number} ({o}) is there in part: {own}")

    def _check_value(self, key: int, value: int, who: str) -> Iterator[Problem]:
        append = self._appends.get(value)
        if append is None or append.key != key:
            yield self._wrong("phantom", f"{who} has {value} in list {key}, which nobody appended")
        elif self._operations[append.operation].outcome == FAIL:
            yield self._wrong("G1a", f"{who} has {value} in list {key}, of a transaction that failed")

    def _check_reads(self) -> Iterator[Problem]:
        for o in self._operations:
            if o.outcome == OK:
                for key, seen in _external(o.value):
                    if seen is None:
                        yield self._wrong("internal", f"{o} contradicts its own steps on list {key}: {o.value}")
                    else:
                        yield from self._check_read(o, key, seen)

    def _check_read(self, o: Operation, key: int, seen: list[int]) -> Iterator[Problem]:
        order = self._order.get(key, [])
        if seen != order[: len(seen)]:
            known = [*(p for v in seen if v not in order for p in self._check_value(key, v, str(o)))]
            yield from known
            if len(set(seen)) < len(seen):
                yield self._wrong("twice", f"{o} read a value twice in list {key}: {seen}")
            elif not known:
                yield self._wrong("incompatible-order", f"{o} read {seen} in list {key}, which became {order}")
        elif seen and (append := self._appends.get(seen[-1])) is not None and not append.last:
            yield self._wrong("G1b", f"{o} read list {key} up to {seen[-1]}, the middle of a transaction")

    def _check_cycles(self) -> Iterator[Problem]:
        graph = self._graph()
        for name, way, mask in cycles.find(graph):
            shown = [v for v in way if v < len(self._operations)]
            kinds = [graph.name(a, b, mask) for a, b in zip(way, way[1:], strict=False)]
            told = "; ".join(f"{self._operations[v]} {self._operations[v].value}" for v in dict.fromkeys(shown))
            yield self._wrong(name, f"{' '.join(kinds)}: {told[:1500]}")

    def _graph(self) -> cycles.Graph:
        graph = cycles.Graph(len(self._operations))
        for values in self._order.values():
            writers = [a.operation for v in values if (a := self._appends.get(v)) is not None]
            for first, second in zip(writers, writers[1:], strict=False):
                graph.add(first, second, cycles.WW)
        for number, o in enumerate(self._operations):
            if o.outcome == OK:
                for key, seen in _external(o.value):
                    self._add_read(graph, number, key, len(seen or []))
        self._add_time(graph)
        return graph

    def _add_read(self, graph: cycles.Graph, reader: int, key: int, length: int) -> None:
        order = self._order.get(key, [])
        if length > 0 and (before := self._appends.get(order[length - 1])) is not None:
            graph.add(before.operation, reader, cycles.WR)
        if length < len(order) and (behind := self._appends.get(order[length])) is not None:
            graph.add(reader, behind.operation, cycles.RW)

    def _add_time(self, graph: cycles.Graph) -> None:
        """Real time, by a chain of vertices: behind who was acknowledged, before who was asked later."""
        ends = sorted((o.end, number) for number, o in enumerate(self._operations) if o.end is not None)
        starts = sorted((o.start, number) for number, o in enumerate(self._operations))
        last, at = -1, 0
        for start, number in starts:
            while at < len(ends) and ends[at][0] < start:
                behind = graph.vertex()
                graph.add(ends[at][1], behind, cycles.RT)
                if last >= 0:
                    graph.add(last, behind, cycles.RT)
                last = behind
                at += 1
            if last >= 0:
                graph.add(last, number, cycles.RT)


def _external(steps: list[Step]) -> Iterator[tuple[int, list[int] | None]]:
    """For each list that a transaction read, what was there before it; None where its own steps do not fit."""
    own: dict[int, list[int]] = {}
    first: dict[int, list[int]] = {}
    bad: set[int] = set()
    for kind, key, value in steps:
        mine = own.setdefault(key, [])
        if kind == "append":
            mine.append(value)
            continue
        before = value[: max(0, len(value) - len(mine))]
        expected = first.setdefault(key, before)
        if value != expected + mine:
            bad.add(key)
    for key, before in first.items():
        yield key, None if key in bad else before
