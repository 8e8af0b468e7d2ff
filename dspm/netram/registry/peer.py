"""One node as the registry sees it: dials it, keeps it up to date, notices when it is silent.

Invariants: a node hears of a decision only after it was written; `view` and `sequence` are what the node has
acknowledged on this very connection, and nothing is assumed of an earlier one; a removed dataset is owed until the node
said that it is free, on whatever connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog

from dspm.errors import DspmError
from dspm.netram.link import Handler, Link
from dspm.netram.messages import DatasetEntry, Datasets, Done, NodeEntry, Ping, Pong
from dspm.netram.registry.catalog import Catalog
from dspm.netram.registry.returning import Memory

PING_INTERVAL_S = 0.1
PING_TIMEOUT_S = 1.0
PUSH_TIMEOUT_S = 5.0
DIAL_TIMEOUT_S = 2.0
RETRY_MAX_S = 1.0
PUSH_BYTES_MAX = 1 << 20
FREE_TIMEOUT_S = 2.0
FREE_RETRY_S = 1.0
FREE_MAX = 1000

T = TypeVar("T")
log = structlog.get_logger("registry.peer")


@dataclass(slots=True)
class Heard:
    """What a node has acknowledged on the current connection."""

    view: int = 0
    sequence: int = 0


class Peer:
    """A node. `store` is None while it does not answer; `trouble` says why, in words."""

    def __init__(
        self, node: NodeEntry, key: bytes, catalog: Catalog, handler: Handler, on_change: Callable[[], None]
    ) -> None:
        self.node = node
        self.store: int | None = None
        self.last_store: int | None = None
        self.memory: Memory | None = None
        self.trouble = "not reached yet"
        self.heard = Heard()
        self._key = key
        self._catalog = catalog
        self._handler = handler
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._free_again = 0.0
        self._task = asyncio.create_task(self._run(), name=f"peer {node.name}")

    def poke(self) -> None:
        """There is something new to tell."""
        self._wake.set()

    async def stop(self) -> None:
        """Ends the connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def has_heard(self, view: int, sequence: int) -> bool:
        """True when the node has acknowledged both."""
        return self.store is not None and self.heard.view >= view and self.heard.sequence >= sequence

    async def _run(self) -> None:
        pause = PING_INTERVAL_S
        while True:
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    name = f"registry of {self._catalog.cluster}"
                    link = await Link.dial(self.node.address, self._key, self._catalog.cluster, name, self._handler)
                try:
                    pause = PING_INTERVAL_S
                    await self._converse(link)
                finally:
                    await link.close()
            except (DspmError, TimeoutError) as e:
                self._lost(str(e) or "no answer in time")
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MAX_S)

    def _lost(self, why: str) -> None:
        if self.trouble != why or self.store is not None:
            log.warning("node lost", node=self.node.name, address=self.node.address, why=why)
        self.store, self.memory, self.trouble, self.heard = None, None, why, Heard()
        self._on_change()

    async def _converse(self, link: Link) -> None:
        if link.challenge.name != self.node.name:
            raise DspmError(f"{self.node.address} is the node {link.challenge.name!r}")
        while True:
            self._wake.clear()
            pong = await link.ask(Ping(), Pong, PING_TIMEOUT_S)
            await self._bring_up_to_date(link, pong)
            if self.store != pong.store:
                log.info("node answers", node=self.node.name, store=f"{pong.store:016x}", boot=pong.boot)
                self.store = self.last_store = pong.store
                self.memory = Memory(pong.store, frozenset(pong.former))
                self.trouble = ""
                self._on_change()
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _bring_up_to_date(self, link: Link, pong: Pong) -> None:
        if pong.view > self._catalog.view_version:
            ours = self._catalog.view_version
            raise DspmError(f"the node has version {pong.view} of the view, this registry only {ours}")
        if pong.view < self._catalog.view_version or self.heard.view < self._catalog.view_version:
            view = self._catalog.view()
            await link.ask(view, Done, PUSH_TIMEOUT_S)
            self.heard.view = view.version
            self._on_change()
        changed = self._catalog.changed_since(self.heard.sequence) if self.heard.sequence else None
        known, sequence = self._catalog.datasets, self._catalog.sequence
        if changed is None or (not changed and pong.datasets != len(known)):
            await self._tell(link, list(known.values()), [], whole=True)
        elif changed:
            put = [known[n] for n in changed if n in known]
            await self._tell(link, put, [n for n in changed if n not in known], whole=False)
        await self._free(link)
        if self.heard.sequence != sequence:
            self.heard.sequence = sequence
            self._on_change()

    async def _tell(self, link: Link, put: list[DatasetEntry], gone: list[str], whole: bool) -> None:
        """Sends one change in messages of a bounded size; the node makes it when it has the last one."""
        parts = [Datasets(whole=False, put=p) for p in _split(put)]
        parts += [Datasets(whole=False, put=[], gone=p) for p in _split(gone)]
        if whole:
            parts.insert(0, Datasets(whole=True, put=[]))
        for i, part in enumerate(parts, 1):
            part.more = i < len(parts)
            await link.ask(part, Done, PUSH_TIMEOUT_S)

    async def _free(self, link: Link) -> None:
        """Has the node free what was removed. One that cannot now (its disk may be full) is asked again."""
        owed = self._catalog.owed_to(self.node.name)
        loop = asyncio.get_running_loop()
        if not owed or loop.time() < self._free_again:
            return
        for at in range(0, len(owed), FREE_MAX):
            part = owed[at : at + FREE_MAX]
            try:
                await link.ask(Datasets(whole=False, put=[], drop=part), Done, FREE_TIMEOUT_S)
            except DspmError as e:
                self._free_again = loop.time() + FREE_RETRY_S
                log.warning(
                    "removed datasets are not freed yet", node=self.node.name, groups=len(owed) - at, why=str(e)
                )
                return
            self._catalog.freed(self.node.name, part)
        log.info("removed datasets are freed", node=self.node.name, groups=len(owed))


def _split(items: list[T]) -> list[list[T]]:
    parts: list[list[T]] = []
    room = 0
    for item in items:
        size = len(msgspec.json.encode(item)) + 1
        if size > room:
            parts.append([])
            room = PUSH_BYTES_MAX
        parts[-1].append(item)
        room -= size
    return parts
