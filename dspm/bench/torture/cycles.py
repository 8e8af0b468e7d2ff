"""Cycles of dependencies between transactions, named as Adya and Elle name them.

Edges: *ww*, the second wrote behind the first; *wr*, the second read what the first wrote; *rw*, the second wrote
behind what the first read; *rt*, the second was asked after the first was acknowledged. A history of a strictly
serializable store has no cycle of them. The simplest first: G0 (ww), G1c (ww, wr), G-single (one rw), G2 (more than
one), each with `-realtime` where it takes an rt edge.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

WW, WR, RW, RT = 1, 2, 4, 8
_NAMES = {WW: "ww", WR: "wr", RW: "rw", RT: "rt"}


class Graph:
    """Vertices are numbers from 0; an edge has all kinds for which there is a reason."""

    def __init__(self, vertices: int) -> None:
        self.edges: list[dict[int, int]] = [{} for _ in range(vertices)]

    def vertex(self) -> int:
        """A new vertex."""
        self.edges.append({})
        return len(self.edges) - 1

    def add(self, a: int, b: int, kind: int) -> None:
        """An edge; one to itself is none."""
        if a != b:
            self.edges[a][b] = self.edges[a].get(b, 0) | kind

    def components(self, mask: int, within: Iterable[int]) -> list[list[int]]:
        """Strongly connected components of more than one vertex (Tarjan, without recursion)."""
        inside = set(within)
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: set[int] = set()
        found: list[list[int]] = []
        for root in inside:
            if root in index:
                continue
            work = [(root, self._next(root, mask, inside))]
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            while work:
                v, following = work[-1]
                w = next(following, None)
                if w is None:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[v])
                    if low[v] == index[v]:
                        at = stack.index(v) if stack[-1] != v else len(stack) - 1
                        component = stack[at:]
                        del stack[at:]
                        on_stack.difference_update(component)
                        if len(component) > 1:
                            found.append(component)
                elif w not in index:
                    index[w] = low[w] = len(index)
                    stack.append(w)
                    on_stack.add(w)
                    work.append((w, self._next(w, mask, inside)))
                elif w in on_stack:
                    low[v] = min(low[v], index[w])
        return found

    def _next(self, v: int, mask: int, inside: set[int]) -> Iterator[int]:
        return (w for w, kinds in self.edges[v].items() if kinds & mask and w in inside)

    def path(self, a: int, b: int, mask: int, inside: set[int]) -> list[int]:
        """The shortest way from a to b, or round from a to itself; empty if there is none."""
        before = {a: a}
        queue = deque([a])
        while queue:
            v = queue.popleft()
            for w in self._next(v, mask, inside):
                if w == b:
                    way = [b, v]
                    while way[-1] != a:
                        way.append(before[way[-1]])
                    return way[::-1]
                if w not in before:
                    before[w] = v
                    queue.append(w)
        return []

    def name(self, a: int, b: int, mask: int) -> str:
        """The kind of an edge: the first that `mask` allows."""
        kinds = self.edges[a][b] & mask
        return next(name for kind, name in _NAMES.items() if kinds & kind)


def find(graph: Graph) -> list[tuple[str, list[int], int]]:
    """For each component of the graph the simplest cycle: name, vertices, and the kinds of edges that it uses."""
    found = []
    for component in graph.components(WW | WR | RW | RT, range(len(graph.edges))):
        inside = set(component)
        for suffix, also in (("", 0), ("-realtime", RT)):
            if (cycle := _simplest(graph, inside, also)) is not None:
                name, way, mask = cycle
                found.append((name + suffix, way, mask))
                break
    return found


def _simplest(graph: Graph, inside: set[int], also: int) -> tuple[str, list[int], int] | None:
    for name, kinds in (("G0", WW), ("G1c", WW | WR)):
        for part in graph.components(kinds | also, inside):
            return name, _round(graph, part, kinds | also), kinds | also
    for a in inside:
        for b, kinds in graph.edges[a].items():
            if kinds & RW and b in inside and (way := graph.path(b, a, WW | WR | also, inside)):
                return "G-single", [a, *way], WW | WR | RW | also
    for part in graph.components(WW | WR | RW | also, inside):
        return "G2", _round(graph, part, WW | WR | RW | also), WW | WR | RW | also
    return None


def _round(graph: Graph, part: list[int], mask: int) -> list[int]:
    """A short cycle in a component."""
    inside = set(part)
    return min((graph.path(v, v, mask, inside) for v in part[:50]), key=len)
