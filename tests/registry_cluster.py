"""A registry that changes members, and nodes that speak the wire, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from peer import FakeNode
from test_registry_service import KEY, by_name, registry, start_again, until

from dspm.netram.messages import CreateOptions, MemberEntry, NodeEntry, SetEntry


def names(entries: list[MemberEntry]) -> list[str]:
    return [m.node for m in entries]


class Cluster:
    """A registry that changes members, and nodes that activate and become whole when they are let."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = registry(path, failover=True)
        self.nodes: list[FakeNode] = []
        self.offset = 0.0
        clock = self.service.membership.clock
        self.service.membership.clock = lambda: clock() + self.offset

    async def start(self, count: int) -> None:
        for i in range(1, count + 1):
            await self.add(FakeNode(f"n{i}", KEY, "c"))

    async def add(self, node: FakeNode) -> None:
        await node.start()
        node.activates = node.joins = True
        self.nodes.append(node)
        await self.service.add_node(NodeEntry(node.name, node.address, f"{node.name}@local"))

    async def stop(self) -> None:
        await self.service.stop()
        for node in self.nodes:
            await node.stop()

    async def set_of(self, name: str, copies: int = 2, durability: str = "memory") -> SetEntry:
        """A new dataset's set."""
        await self.service.locate(name, CreateOptions(copies=copies, durability=durability))  # type: ignore[arg-type]
        return self.now(name)

    def now(self, name: str) -> SetEntry:
        return self.service.catalog.sets[self.service.catalog.find(name).set]

    def node(self, name: str) -> FakeNode:
        return by_name(self.nodes, name)

    async def kill(self, name: str) -> FakeNode:
        await self.node(name).stop()
        return self.node(name)

    async def back(self, node: FakeNode, store: int | None = None, *former: int) -> FakeNode:
        new = await start_again(node, node.store if store is None else store, *former)
        new.activates = new.joins = True
        self.nodes[self.nodes.index(node)] = new
        return new

    async def becomes(self, name: str, *members: str) -> SetEntry:
        """Waits until the dataset's set is active with these members and nobody joins."""

        def there() -> bool:
            s = self.now(name)
            return s.state == "active" and not s.joining and sorted(names(s.members)) == sorted(members)

        await until(there)
        return self.now(name)


@contextlib.asynccontextmanager
async def running(path: Path, count: int) -> AsyncIterator[Cluster]:
    cluster = Cluster(path)
    try:
        await cluster.start(count)
        yield cluster
    finally:
        await cluster.stop()


def run(path: Path, count: int, body: Callable[[Cluster], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with running(path, count) as cluster:
            await body(cluster)

    asyncio.run(all_of_it())
