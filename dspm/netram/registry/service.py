"""The registry at work: answers nodes, and says that something is decided only when those concerned have heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from dspm.errors import ConflictError, ProtocolError, UnavailableError, UsageError
from dspm.netram.client import split_address
from dspm.netram.messages import (
    Activated,
    CannotJoin,
    CreateOptions,
    DatasetEntry,
    Done,
    Locate,
    Located,
    MemberEntry,
    NodeEntry,
    Quiet,
    Remove,
    Removed,
    Rename,
    Request,
    SetEntry,
    Suspect,
    Whole,
)
from dspm.netram.names import check_node_name
from dspm.netram.registry.catalog import Catalog, exists
from dspm.netram.registry.listening import Listening
from dspm.netram.registry.membership import TICK_S, Membership, Rules
from dspm.netram.registry.peer import Peer
from dspm.netram.registry.removal import QUIET_TIMEOUT_S, not_quiet
from dspm.netram.registry.successor import Successor
from dspm.netram.registry.takeover import Takeover
from dspm.netram.returned import what_waits

HEAR_TIMEOUT_S = 5.0
NODES_MAX = 1024

log = structlog.get_logger("registry")


class Service:
    """All nodes and all decisions."""

    def __init__(self, catalog: Catalog, key: bytes, rules: Rules) -> None:
        self.catalog = catalog
        self.membership = Membership(catalog, rules, self._poke)
        self._key = key
        self._peers: dict[str, Peer] = {}
        self._leaving: list[Peer] = []
        self.successor = Successor(catalog, self._peers, self._taken_over)
        self._changed = asyncio.Event()
        self._unheard: dict[str, int] = {}
        self._ticking: asyncio.Task[None] | None = None
        self.fault: BaseException | None = None
        """What ended the supervision of nodes: a fault of dspm itself. `on_fault` is called then."""
        self.on_fault: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Dials all nodes, and decides nothing before they were heard."""
        self.catalog.listening = Listening(self.catalog.nodes, self.membership.clock())
        for node in self.catalog.nodes.values():
            self._peers[node.name] = self._dial(node)

    async def stop(self) -> None:
        """Ends all connections."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self.successor.stop()
        await asyncio.gather(*(p.stop() for p in (*self._peers.values(), *self._leaving)))

    def _dial(self, node: NodeEntry) -> Peer:
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="membership")
        membership = self.membership
        pulse, clock = membership.pulse(node.name), membership.clock
        return Peer(node, self._key, self.catalog, pulse, clock, self.handle, self._on_change)

    async def _tick(self) -> None:
        try:
            while True:
                self._listen()
                self.membership.tick()
                self.successor.tick()
                self._look()
                for fault in (p.fault for p in self._peers.values()):
                    if fault is not None:
                        raise fault
                await asyncio.sleep(TICK_S)
        except Exception as e:  # a registry that no longer looks after its nodes must not seem to
            log.critical("fault of dspm: this registry ends", why=repr(e))
            self.fault = e
            self.on_fault()

    def _listen(self) -> None:
        if late := self.catalog.listening.give_up(self.membership.clock()):
            log.warning("this registry goes on without having heard all nodes", not_heard=late)
            self._on_change()

    async def ready(self) -> None:
        """Waits until a registry that has just started may decide something. Whether it may is told by who decides."""
        await self._until(lambda: not self.catalog.listening.missing or bool(self.catalog.ahead))

    def _look(self) -> None:
        self.membership.look()

    def _on_change(self) -> None:
        self._look()
        self._changed.set()
        self._changed = asyncio.Event()

    def _taken_over(self) -> None:
        """The state is another one: all that was known of the old one is forgotten, and everybody is told."""
        self._unheard.clear()
        self.membership.begin_anew()
        nodes = self.catalog.nodes
        for peer in [p for p in self._peers.values() if nodes.get(p.node.name) != p.node]:
            self._leaving.append(self._peers.pop(peer.node.name))
            self._leaving[-1].end()
            self.membership.forget(peer.node.name)
        for name in nodes.keys() - self._peers.keys():
            self._peers[name] = self._dial(nodes[name])
        self._poke()
        self._on_change()

    async def take_over(self, node: str | None) -> Takeover:
        """Goes on from what a node knows, on an operator's word."""
        return await self.successor.by_order(node)

    def _poke(self, first: set[str] | None = None) -> None:
        """All nodes hear of a change at once; those whom it concerns are written to first."""
        for peer in sorted(self._peers.values(), key=lambda p: p.node.name not in (first or ())):
            peer.poke()

    async def handle(self, node: str, request: Request) -> msgspec.Struct:
        """Answers a request of that node."""
        match request:
            case Locate(name, create):
                return await self.locate(name, create)
            case Remove(name, accept_loss):
                await self.remove(name, accept_loss)
                return Done()
            case Quiet():
                log.info("dataset is at rest, and removed", name=self.catalog.quiet(node, request))
                self._on_change()
                return Done()
            case Removed(group):
                return Done(self.catalog.was_removed(group))
            case Rename(name, to, aside):
                await self.rename(name, to, aside)
                return Done()
            case Activated(group_set, generation):
                self._check_knows(node, group_set)
                self.membership.activated(node, group_set, generation)
                return Done()
            case Whole(group_set, generation, store):
                self._check_knows(node, group_set)
                self.membership.whole(node, group_set, generation, store)
                return Done()
            case Suspect(group_set, generation, suspect, store, lapsed_ms):
                self.membership.suspect(node, group_set, generation, MemberEntry(suspect, store), lapsed_ms / 1e3)
                return Done()
            case CannotJoin(group_set, generation, store, why):
                self.membership.cannot_join(node, group_set, generation, store, why)
                return Done()
            case _:
                raise ProtocolError(f"a registry does not answer {type(request).__name__}")

    def _check_knows(self, node: str, set_id: int) -> None:
        """What a node says of all groups of a set counts when it knows all of them."""
        peer = self._peers.get(node)
        if peer is None or peer.heard.sequence < self.catalog.began(set_id):
            raise UnavailableError(f"{node} does not know all datasets of the set yet", "say it again")

    async def locate(self, name: str, create: CreateOptions | None) -> Located:
        """Where a dataset is; creates it if that is asked for and it is missing."""
        created = False
        if name not in self.catalog.datasets:
            await self.ready()
        if create is not None and name not in self.catalog.datasets:
            stores = {n: p.store for n, p in self._peers.items() if p.store is not None and p.answers}
            entry = self.catalog.create(name, create, stores, self.membership.full())
            self._unheard[name] = self.catalog.sequence
            created = True
            log.info("dataset created", name=name, set=f"{entry.set:016x}")
            self._poke()
        elif create is not None and create.exclusive:
            raise exists(name)
        entry = self.catalog.find(name)
        if name in self._unheard:
            await self._members_hear(entry, self._unheard[name])
            self._unheard.pop(name, None)
        members = self.catalog.sets[entry.set]
        nodes = [self.catalog.nodes[m.node] for m in (*members.members, *members.joining)]
        return Located(entry, members, nodes, self.catalog.defaults.lease_ms, created)

    async def remove(self, name: str, accept_loss: bool = False) -> None:
        """Removes a dataset when it is at rest, or at once; done when every node that answers has heard it."""
        await self.ready()
        if accept_loss:
            self.catalog.remove(name)
            log.warning("dataset removed, whatever it decided about others", name=name)
        else:
            await self._come_to_rest(self.catalog.mark(name))
        self._unheard.pop(name, None)
        await self._answering_hear()

    async def _come_to_rest(self, marked: DatasetEntry) -> None:
        """Waits until its primary has brought a dataset to rest, and it is removed."""
        self._poke()

        def now() -> DatasetEntry | None:
            entry = self.catalog.datasets.get(marked.name)
            return entry if entry is not None and entry.group == marked.group else None

        try:
            await self._until(lambda: now() != marked, QUIET_TIMEOUT_S)
        finally:
            self.catalog.unmark(marked)
            self._poke()
            self._on_change()
        if now() is not None:
            self.catalog.check_current()
            raise not_quiet(marked.name)

    async def rename(self, name: str, to: str, aside: str | None = None) -> None:
        """Renames a dataset, and to `aside` what had its new name; done when every node that answers has heard it."""
        await self.ready()
        for old, new in self.catalog.rename(name, to, aside):
            if old in self._unheard:
                self._unheard[new] = self._unheard.pop(old)
            log.info("dataset renamed", name=old, to=new)
        await self._answering_hear()

    async def add_node(self, node: NodeEntry) -> None:
        """Registers a node and waits until it is up to date. One that is known by all that is said of it is told so
        also while nothing may be decided."""
        _check_node(node)
        peer = self._peers.get(node.name)
        if peer is None and len(self._peers) >= NODES_MAX:
            raise UsageError(f"a cluster has at most {NODES_MAX} nodes")
        if peer is not None and peer.store is not None and peer.node.address != node.address:
            raise ConflictError(
                f"a node named {node.name!r} serves at {peer.node.address}", "give the new node another name"
            )
        if self.catalog.nodes.get(node.name) != node:
            await self.ready()
        self.catalog.put_node(node)
        if peer is None or peer.node != node:
            if peer is not None:
                await peer.stop()
            peer = self._peers[node.name] = self._dial(node)
        self._poke()
        view, sequence = self.catalog.view_version, self.catalog.sequence
        if not await self._until(lambda: peer.has_heard(view, sequence)):
            why = peer.refused or peer.trouble
            raise UnavailableError(f"the node {node.name} at {node.address} does not answer: {why}")

    async def remove_node(self, node: str) -> None:
        """Forgets a node that is drained and gone."""
        await self.ready()
        self.membership.check_removable(node)
        self.catalog.remove_node(node)
        await self._peers.pop(node).stop()
        self.membership.forget(node)
        log.info("node is removed", node=node)
        self._poke()

    async def switchover(self, dataset: str, node: str | None) -> SetEntry:
        """Makes another complete member the primary of the dataset's set; done when it serves."""
        await self.ready()
        wanted = self.membership.switchover(dataset, node)
        if (now := await self._serves(wanted)).primary != wanted.primary:
            raise UnavailableError(f"{wanted.primary} did not take over; {now.primary} serves", "try again")
        return now

    async def recover(self, set_id: int, generation: int, source: MemberEntry) -> SetEntry:
        """Lets a set that is down go on from a node that may lack acknowledged commits; done when it serves."""
        await self.ready()
        return await self._serves(self.membership.recover(set_id, generation, source))

    async def _serves(self, wanted: SetEntry) -> SetEntry:
        """Waits until the set is active in that generation, or in a later one."""

        def now() -> SetEntry:
            return self.catalog.sets[wanted.id]

        if not await self._until(lambda: now().generation > wanted.generation or now().state == "active"):
            raise UnavailableError(f"{wanted.primary} has not taken over in time", "`dspm status` shows the set")
        return now()

    def node_states(self) -> list[dict[str, Any]]:
        """Nodes with "serving", "down", "behind", "full" (their disk), "ahead" (of this registry's state) or "lost its
        memory", whether they are drained, and how many sets are on them; what they remember and, in seconds, since
        when they were silent."""
        found, now, sets = [], self.membership.clock(), self.membership.sets_by_node()
        for p in self._peers.values():
            state, why = self._state(p)
            draining = p.node.name in self.catalog.draining
            heard = self.membership.pulse(p.node.name).at(now)
            silent_s = None if heard.store is None else round(heard.silent_s, 3)
            memory = {"store": heard.store, "former": sorted(heard.former), "silent_s": silent_s, "way": heard.way}
            of_sets = {"draining": draining, "sets": sets[p.node.name]}
            found.append({**msgspec.to_builtins(p.node), "state": state, "why": why, **of_sets, **memory})
        return found

    def _state(self, peer: Peer) -> tuple[str, str]:
        if peer.store is None:
            return "ahead" if peer.node.name in self.catalog.ahead and peer.answers else "down", peer.trouble
        full = self.membership.pulse(peer.node.name).at(self.membership.clock()).full
        full = f"is given nothing more: {full}" if full else ""
        if peer.refused:  # often because the view cannot be written, either
            behind = f"cannot take over the newest view: {peer.refused}"
            return "behind", "; ".join(filter(None, (behind, full)))
        if full:
            return "full", full
        why = what_waits(self.catalog.sets.values(), peer.node.name, peer.store)
        return ("lost its memory", why) if why else ("serving", "")

    async def _members_hear(self, entry: DatasetEntry, sequence: int) -> None:
        """Waits until the members of the dataset's set know it, so that they serve it at once."""
        view = self.catalog.view_version

        def silent() -> list[str]:
            members = [self._peers[m.node] for m in self.catalog.sets[entry.set].members]
            return [p.node.name for p in members if not p.has_heard(view, sequence)]

        if not await self._until(lambda: not silent()):
            deaf = ", ".join(silent())
            raise UnavailableError(f"{entry.name[:80]!r} is placed, but {deaf} did not hear of it in time; try again")

    async def _answering_hear(self) -> None:
        self._poke()
        view, sequence = self.catalog.view_version, self.catalog.sequence
        await self._until(lambda: all(p.store is None or p.has_heard(view, sequence) for p in self._peers.values()))

    async def _until(self, condition: Callable[[], bool], timeout_s: float = HEAR_TIMEOUT_S) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _check_node(node: NodeEntry) -> None:
    hint = "a node has a name of 1 to 64 letters, digits, - . _ and an address host:port"
    check_node_name(node.name)
    try:
        host, port = split_address(node.address)
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port < 65536 or len(node.address) > 255:
        raise UsageError(f"{node.address[:80]!r} is no address", hint)
    if not 0 < len(node.machine) <= 255:
        raise UsageError("a node needs a machine id of 1 to 255 characters", hint)
