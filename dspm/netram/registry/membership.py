"""Changes of replica sets: those that the driver decides, that nodes report, and that operators ask for.

Invariants: all changes go through here, one at a time and synchronously; a change is written before anybody hears of
it. Who was late itself (this process was stopped, or its loop had no time) forgets how long others were silent. While a
node has a newer view than this registry, its state is an old one and decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError, UsageError
from dspm.netram.messages import MemberEntry, SetEntry
from dspm.netram.registry import driver
from dspm.netram.registry.catalog import Catalog, named
from dspm.netram.registry.cuts import Cuts
from dspm.netram.registry.driver import Cluster, Standing, standing
from dspm.netram.registry.pace import GRACE_S, Pace
from dspm.netram.registry.pulse import Heard, Pulse, Way
from dspm.netram.registry.recovering import recover
from dspm.netram.registry.returning import readmit
from dspm.netram.registry.unable import Unable

TICK_S = 0.05
LATE_S = 0.2
"""A pause of this process that makes it forget what it timed."""
_WHY_MAX = 500

log = structlog.get_logger("registry.membership")


def boottime() -> float:
    """Seconds since the machine started, those included in which it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says."""

    failover: bool = True
    suspect_after_s: float = 0.4


class Membership:
    """The changes. `announce` is told which nodes should hear of one first."""

    def __init__(
        self,
        catalog: Catalog,
        rules: Rules,
        announce: Callable[[set[str]], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.rules = rules
        self.clock = clock
        self._catalog = catalog
        self._announce = announce
        self._pulses: dict[str, Pulse] = {}
        self._paces = {i: Pace.begin(clock()) for i in catalog.sets}
        self._down: set[int] = set()
        self._cuts = Cuts()
        self._unable = Unable()
        self._on_time = clock()
        self._quiet: object = None
        """Where nothing was to be decided: while it is like that, nothing is."""

    def pulse(self, node: str) -> Pulse:
        """The silence clock of a node."""
        return self._pulses.setdefault(node, Pulse(self.clock()))

    def full(self) -> frozenset[str]:
        """Nodes whose disks take no more."""
        return frozenset(n for n, h in self._heard().items() if h.full)

    def begin_anew(self) -> None:
        """The state is another one."""
        self._paces = {i: Pace.begin(self.clock()) for i in self._catalog.sets}
        self._down.clear()
        self._cuts, self._unable, self._quiet = Cuts(), Unable(), None

    def tick(self) -> None:
        """Time passed. Called every `TICK_S`."""
        self._is_late()
        self._on_time = self.clock()

    def look(self) -> None:
        """Something was heard, or not heard, of a node: changes what there is to change."""
        if not self._catalog.may_decide or self._is_late():
            return
        heard = self._heard()
        there = {n: h for n, h in heard.items() if h.way is Way.HEARD and not h.is_behind}
        answering = {n: (h.store, bool(h.full), h.refuses) for n, h in there.items()}
        situation = (self._catalog.view_version, answering, set(self._catalog.draining))
        if situation == self._quiet:
            return
        self._readmit(heard)
        settled = self._decide(heard) if self.rules.failover else False
        self._quiet = situation if settled else None

    def _is_late(self) -> bool:
        now = self.clock()
        if now - self._on_time <= LATE_S:
            return False
        log.warning(
            "this registry was stopped or late, it forgets its timers", late_ms=round(1e3 * (now - self._on_time))
        )
        self._on_time = now
        for pulse in self._pulses.values():
            pulse.forget(now)
        self._cuts.forget_reports()
        self._paces = {i: Pace(now, p.failures, p.held) for i, p in self._paces.items()}
        return True

    def _heard(self) -> dict[str, Heard]:
        now = self.clock()
        return {n: p.at(now) for n, p in self._pulses.items() if n in self._catalog.nodes}

    def _cluster(self, heard: Mapping[str, Heard]) -> Cluster:
        c, now = self._catalog, self.clock()
        suspects, cut = self._cuts.suspects(c.sets, now), self._cuts.pairs(now)
        unable, draining = self._unable.places(heard, now), frozenset(c.draining)
        return Cluster(c.nodes, heard, c.load(), draining, self.rules.suspect_after_s, suspects, cut, unable)

    def _sets(self) -> list[SetEntry]:
        """Those that hold something."""
        return [s for s in self._catalog.sets.values() if self._catalog.groups_of(s.id)]

    def sets_by_node(self) -> Counter[str]:
        """How many sets are on each node. One whose datasets were all removed holds nothing, and never changes."""
        return Counter(n for s in self._sets() for n in {m.node for m in (*s.members, *s.joining, *s.last_active)})

    def _copies(self, entry: SetEntry) -> int:
        return self._catalog.kind_of(entry.id).copies

    def _pace(self, entry: SetEntry) -> Pace:
        return self._paces.setdefault(entry.id, Pace(self.clock()))

    def _readmit(self, heard: Mapping[str, Heard]) -> None:
        """Lets sets go on whose members came back without their memory, where nothing acknowledged is at stake."""
        found = [readmit(s, self._catalog.kind_of(s.id).durability, heard) for s in self._catalog.sets.values()]
        back = [r for r in found if r is not None]
        if not self._write([r.entry for r in back]):
            return
        for r in back:
            nodes = [m.node for m in r.entry.members]
            if r.window:
                log.warning("whole set restarted without memory: its last commits may be missing", nodes=nodes)
            else:
                log.info("members go on from their logs", nodes=nodes)

    def _decide(self, heard: Mapping[str, Heard]) -> bool:
        """Returns whether all sets are as they should be."""
        now, cluster, new = self.clock(), self._cluster(heard), []
        unsettled = [s for s in self._sets() if not driver.is_settled(s, self._copies(s), cluster)]
        self._down &= {s.id for s in unsettled}
        for entry in unsettled:
            pace = self._pace(entry)
            if self._notice_down(entry, cluster):
                self._paces[entry.id] = pace.hold(now + GRACE_S)
                continue
            change = driver.decide(entry, self._copies(entry), cluster, now, pace)
            if change is not None:
                groups = self._catalog.groups_of(entry.id)
                cluster.load.add(entry, -groups)
                cluster.load.add(change, groups)
                new.append(change)
        self._write(new)
        return not unsettled

    def _notice_down(self, entry: SetEntry, cluster: Cluster) -> bool:
        down = driver.is_down(entry, cluster)
        if down and entry.id not in self._down:
            nodes = [m.node for m in entry.last_active]
            log.error("a set is down: no complete member answers", set=f"{entry.id:016x}", waits_for=nodes)
        (self._down.add if down else self._down.discard)(entry.id)
        return down

    def _write(self, entries: list[SetEntry]) -> bool:
        """Writes and announces changes; where that fails, all stays as it is for a second."""
        if not entries:
            return False
        try:
            self._change(entries)
        except DspmError as e:
            log.error("changes of sets cannot be written, they wait", sets=len(entries), why=str(e))
            until = self.clock() + 1.0
            self._paces.update({e.id: self._pace(e).hold(until) for e in entries})
            return False
        return True

    def _change(self, entries: list[SetEntry]) -> None:
        now, first = self.clock(), set()
        before = {e.id: self._catalog.sets[e.id] for e in entries}
        self._catalog.change(entries)
        for e in entries:
            old, pace = before[e.id], self._pace(e)
            first |= {m.node for m in (*e.members, *e.joining)}
            if e.generation != old.generation:
                self._paces[e.id] = pace.after_change(now, failed=old.state == "activating")
            _tell(old, e)
        self._announce(first)

    def activated(self, node: str, set_id: int, generation: int) -> None:
        """A primary settled all groups of a set.

        Raises:
            ConflictError: the set is in another generation, or has another primary.
        """
        entry = self._known(set_id)
        self._check_store(node, next((m for m in entry.members if m.node == node), None))
        new = driver.activated(entry, generation, node, self._copies(entry))
        if new is None:
            return
        self._change([new])
        if new.joining or len(new.members) >= self._copies(new):
            self._paces[set_id] = self._pace(new).after_success()

    def whole(self, node: str, set_id: int, generation: int, store: int) -> None:
        """A joining node has everything that the set holds.

        Raises:
            ConflictError: the set is in another generation, not active, or the node does not join it.
        """
        entry, member = self._known(set_id), MemberEntry(node, store)
        self._check_store(node, member)
        new = driver.whole(entry, generation, member, self._copies(entry))
        if new is not None:
            self._change([new])

    def suspect(self, node: str, set_id: int, generation: int, suspect: MemberEntry, lapsed_s: float) -> None:
        """The primary of a set has no grants of a member or joining node since then.

        It counts for a node that this registry hears: what it does not hear it judges by itself.

        Raises:
            ConflictError: the set is in another generation, has another primary, or does not name that node.
        """
        entry = self._known(set_id)
        self._check_store(node, next((m for m in entry.members if m.node == node), None))
        driver.check_suspect(entry, generation, node, suspect)
        heard = self.pulse(suspect.node).at(self.clock())
        if lapsed_s < self.rules.suspect_after_s or not heard.is_there or heard.store != suspect.store:
            return
        if self._cuts.note(set_id, generation, node, suspect, self.clock()):
            log.warning("two nodes that answer here do not hear one another", primary=node, suspect=suspect.node)
        self._quiet = None
        self.look()

    def cannot_join(self, node: str, set_id: int, generation: int, store: int, why: str) -> None:
        """A joining node has no room for what the set needs: the set goes on without it.

        Raises:
            ConflictError: the set is in another generation, or the node does not join it.
        """
        entry, member = self._known(set_id), MemberEntry(node, store)
        self._check_store(node, member)
        driver.check_joins(entry, generation, member)
        now = self.clock()
        if self._unable.note(set_id, node, self.pulse(node).at(now), now):
            log.warning("a node cannot join a set", node=node, set=f"{set_id:016x}", why=why[:_WHY_MAX])
        self._quiet = None
        self.look()

    def _check_store(self, node: str, member: MemberEntry | None) -> None:
        """What a node says counts when it says it with the memory that the set knows."""
        heard = self.pulse(node).at(self.clock())
        if member is not None and heard.store != member.store:
            raise UnavailableError(f"{node} is not known with the store id {member.store:016x} yet", "say it again")

    def _known(self, set_id: int) -> SetEntry:
        try:
            return self._catalog.sets[set_id]
        except KeyError:
            raise NotFoundError(f"there is no set {set_id:016x}") from None

    def drain(self, node: str) -> int:
        """Moves all sets away from a node. Returns how many there are.

        Raises:
            UnavailableError: for a set of it no other node answers that could take over. Nothing is changed then.
        """
        self._check_operator(node)
        sets = [s for s in self._sets() if node in {m.node for m in (*s.members, *s.joining)}]
        if node not in self._catalog.draining:
            self._check_others(node, sets)
            self._catalog.drain(node, True)
            log.info("node is drained", node=node, sets=len(sets))
        return len(sets)

    def check_removable(self, node: str) -> None:
        """Raises ConflictError unless a node is drained, holds nothing that counts, and does not run."""
        self._catalog.check_current()
        self._check_known(node)
        if node not in self._catalog.draining:
            raise ConflictError(f"{node} is not drained", f"`dspm node drain {node} --wait`, end it, then remove it")
        if sets := sum(node in named(s) for s in self._sets()):
            which = "1 replica set still names" if sets == 1 else f"{sets} replica sets still name"
            raise ConflictError(f"{which} {node}", "wait until `dspm status` shows it in none, also as dropped")
        if self.pulse(node).at(self.clock()).way is Way.HEARD:
            raise ConflictError(f"{node} still answers", "end its process first")

    def forget(self, node: str) -> None:
        """A node was removed."""
        self._pulses.pop(node, None)

    def _check_others(self, node: str, sets: list[SetEntry]) -> None:
        """Refuses to drain a node whose sets the others cannot hold."""
        answering = {n for n, h in self._heard().items() if h.is_there} - self._catalog.draining - {node}
        for s in sets:
            if len(answering) < self._copies(s):
                others = ", ".join(sorted(answering)) or "none"
                raise UnavailableError(
                    f"no node can take over from {node}: {self._copies(s)} copies are asked for, and of the other nodes"
                    f" these answer: {others}",
                    "add a node (`dspm node`), or bring one back; nothing was changed",
                )

    def undrain(self, node: str) -> None:
        """Takes a node into use again."""
        self._check_operator(node)
        self._catalog.drain(node, False)
        log.info("node is not drained any more", node=node)

    def _check_operator(self, node: str) -> None:
        self._catalog.check_current()
        self._check_known(node)
        if not self.rules.failover:
            raise UsageError(
                "failover = false: this registry changes the members of no set",
                "set it to true in the registry's config, and start the registry again",
            )

    def recover(self, set_id: int, generation: int, source: MemberEntry) -> SetEntry:
        """Lets a set that is down go on from a node that may lack acknowledged commits. Returns the set.

        Raises:
            ConflictError, UnavailableError: see :func:`~dspm.netram.registry.recovering.recover`. Nothing is changed.
        """
        self._catalog.check_current()
        entry = self._known(set_id)
        new = recover(entry, generation, source, self._cluster(self._heard()))
        given_up = [m.node for m in entry.last_active]
        log.warning(
            "an operator accepts the loss of commits", set=f"{set_id:016x}", goes_on_from=source.node, given_up=given_up
        )
        self._change([new])
        return new

    def _check_known(self, node: str) -> None:
        if node not in self._catalog.nodes:
            raise NotFoundError(f"there is no node named {node[:80]!r}", "`dspm status` lists the nodes")

    def switchover(self, dataset: str, node: str | None) -> SetEntry:
        """Begins a generation of the dataset's set with another complete member as primary. Returns the set.

        Raises:
            ConflictError: the set is changing, or the node is no complete member of it.
            UnavailableError: the node, or another member, does not answer.
        """
        self._catalog.check_current()
        entry = self._catalog.sets[self._catalog.find(dataset).set]
        self._check_operator(node or entry.primary)
        members = [m for m in entry.members if m.node != entry.primary]
        if node == entry.primary:
            return entry
        target = self._target(entry, members, node)
        cluster = self._cluster(self._heard())
        for m in entry.members:
            if standing(m, cluster) is not Standing.SURE:
                raise UnavailableError(f"{m.node} does not answer now, and all members have to agree", "try again")
        new = driver.following(entry, self._copies(entry), cluster, target)
        if new.primary != target:
            raise ConflictError(f"{target} is being drained", f"`dspm node drain {target} --undo` ends that")
        log.info("switchover", set=f"{entry.id:016x}", to=target)
        self._change([new])
        return new

    def _target(self, entry: SetEntry, members: list[MemberEntry], node: str | None) -> str:
        if entry.state != "active":
            raise ConflictError("the set is changing now", "try again when `dspm status` shows it as active")
        names = [m.node for m in members]
        if node is not None and node not in names:
            joins = node in {m.node for m in entry.joining}
            why = "is joining and does not hold everything yet" if joins else "is no member of its set"
            raise ConflictError(f"{node} {why}", f"complete members are {entry.primary} (primary) {' '.join(names)}")
        if not names:
            raise ConflictError(f"{entry.primary} is the only complete member", "wait until others have joined")
        usable = [n for n in names if n not in self._catalog.draining] or names
        load = self._catalog.load()
        return node or min(usable, key=lambda n: (load.primaries[n], load.members[n], n))


def _tell(old: SetEntry, new: SetEntry) -> None:
    names = {k: [m.node for m in getattr(new, k)] for k in ("members", "joining", "dropped")}
    event = "set changes" if new.generation != old.generation else "set goes on"
    log.info(event, set=f"{new.id:016x}", generation=new.generation, state=new.state, primary=new.primary, **names)
