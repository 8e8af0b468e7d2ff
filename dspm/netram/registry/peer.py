"""One node as the registry sees it: dials it, keeps it up to date, notices when it is silent.

Invariants: a node hears of a decision only after it was written; `view` and `sequence` are what the node has
acknowledged on this very connection, and nothing is assumed of an earlier one; a removed dataset is owed until the node
said that it is free, on whatever connection.

Three tasks share a connection: heartbeats, the view, and the rest, so that neither a large catalog nor a slow disk
holds back the word that a set has changed, or lets a node look silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog

from dspm.errors import ConflictError, DspmError
from dspm.netram.link import Link
from dspm.netram.messages import DatasetEntry, Datasets, Done, List, Listing, NodeEntry, Ping, PlainView, Pong, Request
from dspm.netram.registry.catalog import Catalog
from dspm.netram.registry.pulse import Pulse, Way
from dspm.netram.registry.reach import NotReachedError, knock, reach
from dspm.netram.registry.takeover import Known
from dspm.netram.viewsum import view_sum

PING_INTERVAL_S = 0.1
PROBE_AFTER_S = 0.2
"""A heartbeat that is open for so long makes the registry knock, to see why."""
PING_TIMEOUT_S = 1.0
GREET_TIMEOUT_S = 1.0
PUSH_TIMEOUT_S = 5.0
RETRY_MIN_S = 0.01
RETRY_MAX_S = 0.5
PUSH_BYTES_MAX = 1 << 20
REFUSED_PAUSE_S = 0.5
"""Pause before a node is told again what it could not take over."""
FREE_TIMEOUT_S = 2.0
FREE_RETRY_S = 1.0
FREE_MAX = 1000

T = TypeVar("T")
NodeHandler = Callable[[str, Request], Awaitable[msgspec.Struct]]
"""Answers a request of the node of that name."""
log = structlog.get_logger("registry.peer")


@dataclass(slots=True)
class Heard:
    """What a node has acknowledged on the current connection."""

    view: int = 0
    sequence: int = 0


class Peer:
    """A node. `store` is None while it does not answer or is not up to date; `trouble` says why, in words.

    `refused` is why it does not take the newest view or entries of the catalog over; empty when it does.
    """

    def __init__(
        self,
        node: NodeEntry,
        key: bytes,
        catalog: Catalog,
        pulse: Pulse,
        clock: Callable[[], float],
        handler: NodeHandler,
        on_change: Callable[[], None],
    ) -> None:
        self.node = node
        self.store: int | None = None
        self.refused = ""
        self.trouble = "not reached yet"
        self.heard = Heard()
        self._key = key
        self._catalog = catalog
        self._pulse = pulse
        self._clock = clock
        self._handler = handler
        self._on_change = on_change
        self._pong: Pong | None = None
        self._link: Link | None = None
        self._may_push = asyncio.Event()
        self._view_wake = asyncio.Event()
        self._wake = asyncio.Event()
        self._pushing = asyncio.Lock()
        self._free_again = 0.0
        self._task = asyncio.create_task(self._run(), name=f"peer {node.name}")

    @property
    def answers(self) -> bool:
        """It answered its last heartbeat, and takes over what is decided."""
        return self._pulse.at(self._clock()).is_there

    @property
    def fault(self) -> BaseException | None:
        """What ended the task that keeps the connection: a fault of dspm itself."""
        return None if not self._task.done() or self._task.cancelled() else self._task.exception()

    def poke(self) -> None:
        """There is something new to tell."""
        self._view_wake.set()
        self._wake.set()

    def end(self) -> None:
        """Begins to end the connection."""
        self._task.cancel()

    async def stop(self) -> None:
        """Ends the connection."""
        self.end()
        await asyncio.gather(self._task, return_exceptions=True)

    def has_heard(self, view: int, sequence: int) -> bool:
        """True when the node has acknowledged both."""
        return self.store is not None and self.heard.view >= view and self.heard.sequence >= sequence

    async def knows(self) -> Known | None:
        """What the node knows of the cluster; None where it does not answer, or hears of another view meanwhile."""
        link, before = self._link, self._pong
        if link is None or before is None or not before.view:
            return None
        datasets: list[DatasetEntry] = []
        view: PlainView | None = None
        while True:
            after = datasets[-1].name if datasets else ""
            page = await link.ask(List(after, 0, view.version if view else 0), Listing, PUSH_TIMEOUT_S)
            view = page.view or view
            datasets += page.datasets
            if not page.more:
                break
        if view is None:
            return None
        known = view_sum(view.version, view.nodes, view.sets)
        stores = frozenset((before.store, *before.former))
        found = Known(view.version, known, view.nodes, view.sets, datasets, stores)
        return found if self.still_knows(found) else None

    def still_knows(self, known: Known) -> bool:
        """Whether its last heartbeat says the same."""
        pong = self._pong
        now = None if pong is None else (pong.view, pong.sum, frozenset((pong.store, *pong.former)))
        return now == (known.version, known.sum, known.stores)

    async def _run(self) -> None:
        pause = 0.0
        while True:
            began = self._clock()
            try:
                link = await self._greet()
                try:
                    pause = 0.0  # what broke is dialled again at once: that shows whether the process is gone
                    await self._converse(link)
                finally:
                    await link.close()
            except NotReachedError as e:
                # A refusal of long ago says nothing: this process was stopped meanwhile.
                late = self._clock() - began > PING_TIMEOUT_S
                self._lost(str(e), Way.SILENT if late else e.way)
            except (DspmError, TimeoutError) as e:
                self._lost(str(e) or "no answer in time", None)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_MAX_S) or RETRY_MIN_S

    async def _greet(self) -> Link:
        streams = await reach(self.node.address)
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                name = f"registry of {self._catalog.cluster}"
                return await Link.greet(streams, self._key, self._catalog.cluster, name, self._answer)
        except TimeoutError:
            raise NotReachedError(f"{self.node.address} accepts connections and does not answer", Way.FROZEN) from None
        except DspmError as e:
            raise NotReachedError(str(e), Way.UNREACHABLE) from None
        finally:
            if self._pulse.at(self._clock()).way is Way.GONE:
                self._pulse.lost(Way.SILENT)  # somebody accepted

    async def _answer(self, request: Request) -> msgspec.Struct:
        return await self._handler(self.node.name, request)

    def _lost(self, why: str, way: Way | None) -> None:
        if self.trouble != why or self.store is not None:
            log.warning("node lost", node=self.node.name, address=self.node.address, why=why)
        if way is not None or self._pulse.at(self._clock()).way is Way.HEARD:
            self._pulse.lost(way or Way.SILENT)
        self.store, self._pong, self.trouble, self.heard, self.refused = None, None, why, Heard(), ""
        self._on_change()

    async def _converse(self, link: Link) -> None:
        if link.challenge.name != self.node.name:
            raise NotReachedError(f"{self.node.address} is the node {link.challenge.name!r}", Way.UNREACHABLE)
        await self._ping(link)
        self._link = link
        work = (self._beat(link), self._push_views(link), self._keep_up(link), link.ended())
        tasks = [asyncio.create_task(w) for w in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            self._link = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self, link: Link) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            await self._ping(link)

    async def _ping(self, link: Link) -> None:
        view, sequence = self.heard.view, self.heard.sequence
        asking = asyncio.create_task(link.ask(Ping(self._catalog.trouble), Pong, PING_TIMEOUT_S))
        try:
            done, _ = await asyncio.wait({asking}, timeout=PROBE_AFTER_S)
            if not done:
                way = Way.SILENT
                while way is Way.SILENT and not asking.done():
                    way = await knock(self.node.address)
                if not asking.done() and self._pulse.lost(way):
                    self._on_change()
            self._take(await asking, Heard(view, sequence))
        finally:
            asking.cancel()

    def _take(self, pong: Pong, before: Heard) -> None:
        """`before` is what the node had acknowledged when it was asked."""
        self._compare(pong)
        if pong.view < before.view:
            self.heard.view = pong.view
            self.poke()
        same = before.sequence == self.heard.sequence == self._catalog.sequence
        if same and pong.datasets != len(self._catalog.datasets):
            self.heard.sequence = 0
            self._wake.set()
        if self.store not in (None, pong.store):
            self._wake.set()
        self._pong = pong
        if self._pulse.room(pong.full, pong.refuses_ms / 1000):
            event = "a node's disk is full" if pong.full else "a node's disk has room again"
            log.warning(event, node=pong.name, why=pong.full)
        newest = self._catalog.view_version
        if pong.view == newest or self.node.name in self._catalog.ahead:
            self._catalog.listening.heard(self.node.name)
        if self._pulse.heard(self._clock(), pong.store, frozenset(pong.former), pong.view, newest, pong.boot):
            self._on_change()

    def _compare(self, pong: Pong) -> None:
        """Notices a view that this registry's state did not make."""
        version = self._catalog.view_version
        if pong.view > version:
            has = f"version {pong.view} of the view"
        elif pong.view == version and pong.sum not in (0, self._catalog.view_sum):
            has = f"another version {version} of the view"
        else:
            self._may_push.set()
            return
        self._may_push.clear()
        self._is_ahead(has)

    def _is_ahead(self, has: str) -> None:
        """From now on nothing is decided. The node stays connected, so that it can tell others why."""
        known = self._catalog.ahead.get(self.node.name)
        self._catalog.ahead[self.node.name] = has
        ours = f"version {self._catalog.view_version}"
        self.store, self.heard = None, Heard()
        self.trouble = f"the node has {has}, this registry's state {ours}"
        if known != has:
            log.critical(
                "this registry's state is older than what nodes know: it decides nothing until that is certain",
                node=self.node.name,
                node_has=has,
                state_has=ours,
            )
            self._on_change()

    async def _is_refused(self, error: DspmError) -> None:
        """The node cannot take over what it was told; a pause, then it is told again."""
        if self.refused != str(error):
            log.warning("node cannot take over what is decided", node=self.node.name, why=str(error))
            self.refused = str(error)
            self._on_change()
        if self.store is None:
            self.trouble = f"cannot take over what is decided: {error}"
        await asyncio.sleep(REFUSED_PAUSE_S)

    async def _push_views(self, link: Link) -> None:
        while True:
            self._view_wake.clear()
            await self._push_view(link)
            await self._view_wake.wait()

    async def _push_view(self, link: Link) -> None:
        async with self._pushing:
            while self.heard.view < self._catalog.view_version:
                await self._may_push.wait()
                view = self._catalog.view()
                try:
                    await link.ask(view, Done, PUSH_TIMEOUT_S)
                except ConflictError as e:
                    self._is_ahead(f"a view that contradicts this one ({e})")
                    await asyncio.sleep(REFUSED_PAUSE_S)
                    continue
                except DspmError as e:
                    await self._is_refused(e)
                    continue
                self.heard.view, self.refused = view.version, ""
                if self._catalog.ahead.pop(self.node.name, None) is not None:
                    log.warning("node is no longer ahead of this registry", node=self.node.name)
                    self._wake.set()
                self._on_change()

    async def _keep_up(self, link: Link) -> None:
        while True:
            self._wake.clear()
            await self._push_view(link)
            try:
                await self._bring_up_to_date(link)
            except DspmError as e:
                self.heard.sequence = 0
                await self._is_refused(e)
                self._wake.set()
                continue
            pong = self._pong
            if pong is not None and self.store != pong.store:
                log.info("node answers", node=self.node.name, store=f"{pong.store:016x}", boot=pong.boot)
                self.store, self.trouble = pong.store, ""
                self._on_change()
            try:
                async with asyncio.timeout(FREE_RETRY_S if self._catalog.owed_to(self.node.name) else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _bring_up_to_date(self, link: Link) -> None:
        changed = self._catalog.changed_since(self.heard.sequence) if self.heard.sequence else None
        known, sequence = self._catalog.datasets, self._catalog.sequence
        if changed is None:
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
        if not owed or loop.time() < self._free_again or not self._catalog.may_decide:
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
