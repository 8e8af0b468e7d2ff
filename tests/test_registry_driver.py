"""When and how a set changes its members: by table, and what holds whatever was heard."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspm.errors import ConflictError
from dspm.netram.messages import MemberEntry, NodeEntry, SetEntry
from dspm.netram.placement import Load
from dspm.netram.registry import driver
from dspm.netram.registry.cuts import Cuts
from dspm.netram.registry.driver import Cluster, decide, following
from dspm.netram.registry.pace import ACTIVATION_S, GRACE_S, PAUSE_MAX_S, PAUSE_S, Pace
from dspm.netram.registry.pulse import Heard, Pulse, Way

LONG_AGO, A_MOMENT_AGO = Pace(changed=-1000.0), Pace(changed=-1.0)
NOW = 0.0
GONE, COLD, OFF = Heard(1, Way.GONE), Heard(1, Way.FROZEN, 0.5), Heard(1, Way.UNREACHABLE, 0.5)
SHORT = Heard(1, Way.UNREACHABLE, 0.1)
HERE, NEW = Heard(1), Heard(2)
REFUSES = Heard(1, full="no room", refuses_s=9.0)


def member(name: str, store: int = 1) -> MemberEntry:
    return MemberEntry(name, store)


def members(names: str) -> list[MemberEntry]:
    return [member(n) for n in names]


def a_set(names: str, joining: str = "", last: str | None = None, dropped: str = "", state: str = "active") -> SetEntry:
    last_active = members(names if last is None else last)
    return SetEntry(9, 5, state, names[0], members(names), members(joining), last_active, members(dropped))  # type: ignore[arg-type]


def cluster(draining: str = "", machines: str = "", **heard: Heard) -> Cluster:
    """Nodes are letters; `machines` names that of each in their order, else each has its own."""
    machine = dict(zip(heard, machines, strict=True)) if machines else {n: n for n in heard}
    nodes = {n: NodeEntry(n, "h:1", machine[n]) for n in heard}
    return Cluster(nodes, heard, Load(), frozenset(draining))


def shape(new: SetEntry | None) -> str:
    """Primary first, members, then who joins, then who was dropped."""
    if new is None:
        return "-"
    assert new.primary == new.members[0].node and new.state == "activating" and new.generation == 6
    return "/".join("".join(m.node for m in x) for x in (new.members, new.joining, new.dropped)).rstrip("/")


TABLE = [
    ("all is well", a_set("ab"), cluster(a=HERE, b=HERE, c=HERE), "-"),
    ("a backup's process is dead", a_set("ab"), cluster(a=HERE, b=GONE, c=HERE), "a/c/b"),
    ("the primary's is", a_set("ab"), cluster(a=GONE, b=HERE, c=HERE), "b/c/a"),
    ("with nobody to replace it", a_set("ab"), cluster(a=HERE, b=GONE), "a//b"),
    ("out of reach", a_set("ab"), cluster(a=HERE, b=OFF, c=HERE), "a/c/b"),
    ("out of reach for a moment", a_set("ab"), cluster(a=HERE, b=SHORT, c=HERE), "-"),
    ("out of reach with nobody to replace it", a_set("ab"), cluster(a=HERE, b=OFF), "a//b"),
    ("stopped, and a spare is there", a_set("ab"), cluster(a=HERE, b=COLD, c=HERE), "a/c/b"),
    ("stopped, and nobody could replace it", a_set("ab"), cluster(a=HERE, b=COLD), "-"),
    ("stopped for long", a_set("ab"), cluster(a=HERE, b=Heard(1, Way.FROZEN, 5.1)), "a//b"),
    ("stopped while it joins", a_set("a", "b"), cluster(a=HERE, b=COLD), "a"),
    ("silent, and not told apart yet", a_set("ab"), cluster(a=HERE, b=Heard(1, Way.SILENT, 9), c=HERE), "-"),
    ("never heard yet", a_set("ab"), cluster(a=GONE, b=Heard(None, Way.SILENT), c=HERE), "-"),
    ("one gone, one in doubt", a_set("abc"), cluster(a=GONE, b=SHORT, c=HERE, d=HERE), "-"),
    ("two gone", a_set("abc"), cluster(a=GONE, b=GONE, c=HERE, d=HERE, e=HERE), "c/de/ab"),
    ("back without its memory", a_set("ab"), cluster(a=HERE, b=NEW), "a/b/b"),
    ("all gone", a_set("ab"), cluster(a=GONE, b=GONE, c=HERE), "-"),
    ("all lost their memory", a_set("ab"), cluster(a=NEW, b=NEW, c=HERE), "-"),
    ("the last complete one is gone, a joining one is here", a_set("a", "b"), cluster(a=GONE, b=HERE), "-"),
    ("a dropped one is back, the last complete one gone", a_set("a", "", None, "b"), cluster(a=GONE, b=HERE), "-"),
    ("short of a copy, a spare comes", a_set("a", "", None, "b"), cluster(a=HERE, b=GONE, c=HERE), "a/c/b"),
    ("who held the set before joins first", a_set("b", "", None, "c"), cluster(a=HERE, b=HERE, c=HERE), "b/c/c"),
    ("but on another machine", a_set("b", "", None, "c"), cluster("", "xyy", a=HERE, b=HERE, c=HERE), "b/a/c"),
    ("unless there is none", a_set("a", "", None, "b"), cluster("", "xx", a=HERE, b=HERE), "a/b/b"),
    ("a joining one is gone", a_set("a", "b"), cluster(a=HERE, b=GONE, c=HERE), "a/c"),
    ("a joining one lost its memory again", a_set("a", "b"), cluster(a=HERE, b=NEW), "a/b"),
    ("activation goes on", a_set("a", "c", "ab", "b", "activating"), cluster(a=HERE, b=HERE, c=HERE), "-"),
    (
        "while it does, the joiner dies",
        a_set("a", "c", "ab", "b", "activating"),
        cluster(a=HERE, b=GONE, c=GONE),
        "a//b",
    ),
    ("or the only member, another is back", a_set("a", "", "ab", "b", "activating"), cluster(a=GONE, b=HERE), "b//a"),
    ("drained: others join first", a_set("ab"), cluster("b", a=HERE, b=HERE, c=HERE), "ab/c"),
    ("then it goes", a_set("abc"), cluster("b", a=HERE, b=HERE, c=HERE), "ac//b"),
    ("a drained primary hands over first", a_set("ab"), cluster("a", a=HERE, b=HERE, c=HERE), "ba/c"),
    ("drained, nobody takes over", a_set("ab"), cluster("b", a=HERE, b=HERE), "-"),
    ("a drained one takes over nothing", a_set("ab"), cluster("c", a=HERE, b=GONE, c=HERE), "a//b"),
    ("one copy too many", a_set("abc"), cluster(a=HERE, b=HERE, c=HERE), "ab//c"),
]


@pytest.mark.parametrize(("what", "entry", "heard", "expected"), TABLE, ids=[t[0] for t in TABLE])
def test_table(what: str, entry: SetEntry, heard: Cluster, expected: str) -> None:
    copies = 3 if what in ("one gone, one in doubt", "two gone") else 2
    new = decide(entry, copies, heard, NOW, A_MOMENT_AGO)
    if new is not None and entry.state == "activating":
        assert new.last_active == entry.last_active
    assert shape(new) == expected


SUSPECTED = [
    ("a spare takes its place", a_set("ab"), "b", "ab", {"c": HERE}, "a/c/b"),
    ("there is none", a_set("ab"), "b", "ab", {}, "a//b"),
    ("the primary is not dropped on its own word", a_set("ab"), "a", "", {}, "-"),
    ("all others: the reporter stays", a_set("abc"), "bc", "ab ac", {}, "a//bc"),
    ("a joining one", a_set("a", "b"), "b", "ab", {"c": HERE}, "a/c"),
    ("one that this registry does not hear for sure", a_set("ab"), "b", "ab", {"b": SHORT}, "-"),
    ("one that it sees as stopped", a_set("ab"), "b", "ab", {"b": COLD}, "-"),
    ("nobody of this set", a_set("ab"), "c", "ac", {"c": HERE}, "-"),
    ("a pair that was cut is no reason by itself", a_set("ab"), "", "ab", {}, "-"),
    ("but whoever was is not taken in again", a_set("a", "", None, "b"), "", "ab", {}, "-"),
    ("another is", a_set("a", "", None, "b"), "", "ab", {"c": HERE}, "a/c/b"),
    ("another primary may take it in", a_set("b", "", None, "c"), "", "ac", {"c": HERE}, "b/c/c"),
    ("by one that goes for its full disk", a_set("ab"), "b", "ab", {"a": REFUSES, "c": HERE}, "b/c/a"),
    ("one with room; the full one goes too", a_set("abc"), "c", "ac", {"b": REFUSES, "d": HERE}, "a/d/bc"),
    ("it reports whom it joins with", a_set("a", "c", "ab", "b", "activating"), "c", "ac ab", {"c": HERE}, "a//b"),
]


@pytest.mark.parametrize(
    ("what", "entry", "whom", "cut", "heard", "expected"), SUSPECTED, ids=[t[0] for t in SUSPECTED]
)
def test_suspicions(what: str, entry: SetEntry, whom: str, cut: str, heard: dict[str, Heard], expected: str) -> None:
    named = {m.node: HERE for m in (*entry.members, *entry.joining, *entry.last_active)}
    nodes = cluster(**{"a": HERE, "b": HERE, **named, **heard})
    suspects = frozenset((entry.id, member(m)) for m in whom)
    pairs = frozenset((p[0], p[1]) for p in cut.split())
    nodes = dataclasses.replace(nodes, suspects=suspects, cut=pairs)
    copies = max(2, len(entry.members))
    assert shape(decide(entry, copies, nodes, NOW, A_MOMENT_AGO)) == expected
    if expected != "-":
        assert not driver.is_settled(entry, copies, nodes)


def test_a_pair_is_cut_for_longer_each_time() -> None:
    cuts, m, now = Cuts(), member("b"), 100.0
    sets = {9: a_set("ab")}
    for length in (10, 20, 40, 80, 160, 300, 300):
        assert cuts.note(9, 5, "a", m, now) and cuts.suspects(sets, now) == {(9, m)}
        assert not cuts.note(9, 5, "a", m, now + 0.25), "the same report, repeated"
        assert cuts.suspects(sets, now + 2) == frozenset(), "it was not repeated"
        assert cuts.pairs(now + length - 0.1) == {("a", "b")} and not cuts.pairs(now + length)
        now += length + 5
    assert cuts.note(9, 5, "a", m, now + 1000.0) and not cuts.pairs(now + 1010.0), "long ago"
    assert cuts.note(9, 4, "c", m, now) and cuts.suspects(sets, now) == frozenset(), "of another generation"
    cuts.note(9, 5, "a", m, now)
    cuts.forget_reports()
    assert cuts.suspects(sets, now) == frozenset()


def test_who_has_the_least_to_do_takes_over() -> None:
    load = Load(Counter(b=3, c=1), Counter())
    now = cluster(a=GONE, b=HERE, c=HERE)
    busy = Cluster(now.nodes, now.heard, load)
    assert shape(decide(a_set("abc"), 3, busy, NOW, LONG_AGO)) == "cb//a"


def test_an_activation_that_does_not_end_is_tried_otherwise() -> None:
    """Guards against a new primary that hangs, and against a joining node that it alone cannot reach."""
    entry = a_set("ab", "c", "ab", "", "activating")
    heard = cluster(a=HERE, b=HERE, c=HERE)
    pace = Pace(changed=NOW)
    assert decide(entry, 3, heard, NOW + ACTIVATION_S - 0.1, pace) is None
    first = decide(entry, 3, heard, NOW + ACTIVATION_S, pace)
    assert shape(first) == "ba"
    assert first is not None
    pace = pace.after_change(NOW + 2, failed=True)
    second = decide(first, 3, heard, NOW + 4, pace)
    assert second is not None and (second.primary, second.generation, second.joining) == ("a", 7, [])


def test_a_node_that_never_gets_to_join_does_not_keep_the_set_from_serving() -> None:
    """Guards against a spare without room, or one that the primary cannot reach: each try is an outage."""
    entry, heard = a_set("a", "", "a", "b"), cluster(a=HERE, b=GONE, c=HERE)
    pace, served, tries, ticks = Pace(changed=NOW), 0, 0, 20 * 3600
    for i in range(ticks):
        now = NOW + i / 20
        served += entry.state == "active"
        if entry.state == "activating" and not entry.joining:
            entry = driver.activated(entry, entry.generation, "a", 2) or entry
        new = decide(entry, 2, heard, now, pace)
        if new is not None:
            pace = pace.after_change(now, failed=entry.state == "activating")
            entry = new
            tries += bool(new.joining)
    assert tries > 20 and served / ticks > 0.85, f"{tries} tries, serving {served / ticks:.0%}"


def test_pace() -> None:
    """250 ms, and twice as long for each change in a row that failed, 10 s at most."""
    entry, heard = a_set("ab", "", "abc", "c", "activating"), cluster(a=HERE, b=GONE, c=GONE)
    pace, now, pauses = Pace(changed=NOW), NOW, []
    for _ in range(9):
        wait = next(i / 100 for i in range(2000) if pace.may_change(now + i / 100))
        assert decide(entry, 2, heard, now + wait - 0.01, pace) is None
        assert decide(entry, 2, heard, now + wait, pace) is not None
        pauses.append(wait)
        now += wait
        pace = pace.after_change(now, failed=True)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]
    assert pace.may_remove(now + PAUSE_S), "who is dead goes whatever joining did before"
    assert pace.after_success().may_change(now + PAUSE_S)
    begun = Pace.begin(NOW)
    assert not begun.may_remove(NOW + GRACE_S - 0.01) and begun.may_remove(NOW + GRACE_S)


def test_activated_and_whole() -> None:
    entry = a_set("a", "c", "ab", "b", "activating")
    for generation, node in ((4, "a"), (6, "a"), (5, "c")):
        with pytest.raises(ConflictError):
            driver.activated(entry, generation, node, 2)
    with pytest.raises(ConflictError):
        driver.whole(entry, 5, member("c"), 2)  # not active yet
    active = driver.activated(entry, 5, "a", 2)
    assert active is not None and (active.state, active.last_active) == ("active", members("a"))
    assert active.dropped == members("b"), "a copy is missing yet"
    assert driver.activated(active, 5, "a", 2) is None, "said twice"
    for generation, who in ((4, member("c")), (5, member("c", 2)), (5, member("d"))):
        with pytest.raises(ConflictError):
            driver.whole(active, generation, who, 2)
    done = driver.whole(active, 5, member("c"), 2)
    assert done is not None and done.members == done.last_active == members("ac")
    assert (done.generation, done.joining, done.dropped) == (5, [], [])
    assert driver.whole(done, 5, member("c"), 2) is None, "said twice"


def test_a_pulse_tells_one_moment() -> None:
    pulse = Pulse(10.0)
    assert pulse.at(10.5) == Heard(None, Way.SILENT, 0.5)
    assert (
        pulse.heard(11, 7, frozenset({6})) and not pulse.heard(12, 7, frozenset()) and pulse.heard(12, 8, frozenset())
    )
    assert pulse.lost(Way.FROZEN) and not pulse.lost(Way.FROZEN)
    assert pulse.at(12.3).silent_s == pytest.approx(0.3)
    assert not pulse.at(12.3).is_suspect(0.4) and pulse.at(12.5).is_suspect(0.4)
    assert pulse.lost(Way.GONE) and pulse.at(12).is_suspect(0.4)
    pulse.forget(99)
    assert pulse.at(99) == Heard(8, Way.SILENT) and not pulse.at(200).is_suspect(0.4)


NODES = "abcdef"


@st.composite
def situations(draw: st.DrawFn) -> tuple[SetEntry, int, Cluster]:
    stores, ways = st.sampled_from([None, 1, 1, 1, 2]), st.sampled_from([Way.HEARD, Way.HEARD, *Way])
    room = {"full": st.sampled_from(["", "", "no room"]), "refuses_s": st.sampled_from([0.0, 9.0])}
    heard = st.builds(Heard, stores, ways, st.floats(0, 9), **room)
    known = {n: draw(heard) for n in NODES}
    machines = "".join(draw(st.lists(st.sampled_from("xyz"), min_size=6, max_size=6)))
    now = cluster("".join(draw(st.sets(st.sampled_from(NODES), max_size=2))), machines, **known)
    names = draw(st.permutations(NODES))
    complete = names[: draw(st.integers(1, 3))]
    inside = complete[: draw(st.integers(1, len(complete)))]
    rest = [n for n in names if n not in complete]
    joining = "".join(rest[: draw(st.integers(0, 2))])
    dropped = "".join(n for n in rest[2:] if draw(st.booleans()))
    state = draw(st.sampled_from(["active", "activating"]))
    last = "".join(complete) if state == "activating" else "".join(inside)
    return a_set("".join(inside), joining, last, dropped, state), draw(st.integers(1, 4)), now


def sure(m: MemberEntry, now: Cluster) -> bool:
    return now.heard[m.node].way is Way.HEARD and now.heard[m.node].store == m.store


@settings(max_examples=1000)
@given(situations(), st.integers(0, 3), st.floats(0, 20))
def test_whatever_is_heard(situation: tuple[SetEntry, int, Cluster], failures: int, elapsed: float) -> None:
    entry, copies, now = situation
    new = decide(entry, copies, now, elapsed, Pace(0.0, failures))
    if new is None:
        return
    assert elapsed >= PAUSE_S
    assert new.generation == entry.generation + 1 and new.state == "activating" and new.last_active == entry.last_active
    assert new.members and new.primary == new.members[0].node
    assert set(new.members) <= {m for m in entry.last_active if sure(m, now)}
    names = [m.node for m in (*new.members, *new.joining)]
    assert len(names) == len(set(names)) and all(sure(m, now) for m in new.joining)
    complete = {m.node for m in entry.last_active if sure(m, now)}
    assert not complete & {m.node for m in new.joining}, "a complete member joins anew"
    staying = [m for m in new.members if m.node not in now.draining]
    assert len(staying) + len(new.joining) <= max(copies, len(staying)) and len(staying) <= max(copies, 1)
    full = {n for n, h in now.heard.items() if h.full}
    relieved = (complete & full) - {m.node for m in new.members} if complete - full else set()
    kept = complete - now.draining - relieved
    assert kept <= {m.node for m in new.members} or len(staying) == copies, "a copy given up"
    let_go = {m.node for m in entry.members} & relieved - now.draining
    assert all(now.heard[n].refuses for n in let_go) or len(staying) == copies, "let go though it takes records"
    assert not full & {m.node for m in new.joining if m not in entry.joining}, "it has no room"
    assert not {m.node for m in new.joining} & now.draining
    gone = {m.node for m in (*entry.last_active, *entry.dropped)} - {m.node for m in new.members}
    assert {m.node for m in new.dropped} == gone


MET = [
    a_set("a"),
    a_set("ab"),
    a_set("abc"),
    a_set("a", "b"),
    a_set("ab", "c"),
    a_set("b", "", "ab", "a", "activating"),
]


@pytest.mark.parametrize("entry", MET)
def test_a_set_of_nobody_is_never_made(entry: SetEntry) -> None:
    """All that full disks, dead nodes and reports of links can be together."""
    for heard in product((HERE, REFUSES, GONE), repeat=4):
        for reported in product((False, True), repeat=4):
            whom = {n for n, r in zip("abcd", reported, strict=True) if r and n != entry.primary}
            suspects = frozenset((entry.id, member(n)) for n in whom)
            pairs = frozenset((entry.primary, n) for n in whom)
            now = cluster(**dict(zip("abcd", heard, strict=True)))
            new = decide(entry, 2, dataclasses.replace(now, suspects=suspects, cut=pairs), NOW, LONG_AGO)
            if new is not None:
                assert new.members and new.primary == new.members[0].node
                assert set(new.members) <= {m for m in entry.last_active if sure(m, now)}


@settings(max_examples=1000)
@given(situations())
def test_machines_are_shared_only_where_that_cannot_be_avoided(situation: tuple[SetEntry, int, Cluster]) -> None:
    entry, copies, now = situation
    entry = msgspec.structs.replace(entry, joining=[])
    new = decide(entry, copies, now, NOW, LONG_AGO)
    if new is None:
        return
    machine = {n: e.machine for n, e in now.nodes.items()}
    spares = [n for n in NODES if now.heard[n].is_there and not now.heard[n].full and n not in now.draining]
    taken = {m.node for m in (*new.members, *new.joining)}
    used = Counter(machine[n] for n in taken - now.draining)
    free = {machine[n] for n in set(spares) - taken - {m.node for m in entry.last_active}}
    for m in new.joining:
        assert used[machine[m.node]] == 1 or all(used[x] for x in free), "another machine was free"


@settings(max_examples=500)
@given(situations())
def test_what_it_comes_to_rests(situation: tuple[SetEntry, int, Cluster]) -> None:
    """Guards against a set that never stops changing: activated and whole, with nothing new heard, it stays."""
    entry, copies, now = situation
    now = Cluster(now.nodes, {n: Heard(h.store or 1) for n, h in now.heard.items()}, now.load, now.draining)
    for _ in range(8):
        if entry.state == "activating":
            if any(not sure(m, now) for m in (*entry.members, *entry.joining)):
                entry = decide(entry, copies, now, NOW, LONG_AGO) or entry
                if any(not sure(m, now) for m in entry.members):
                    return  # down
            entry = driver.activated(entry, entry.generation, entry.primary, copies) or entry
        for m in list(entry.joining):
            if sure(m, now):
                entry = driver.whole(entry, entry.generation, m, copies) or entry
        following_one = decide(entry, copies, now, NOW, LONG_AGO)
        if following_one is None:
            break
        entry = following_one
    assert decide(entry, copies, now, NOW, LONG_AGO) is None
    if any(sure(m, now) for m in entry.last_active):
        usable = len(set(NODES) - now.draining)
        assert len(entry.members) >= min(copies, usable) and not entry.joining


def test_a_switchover_names_its_primary() -> None:
    new = following(a_set("abc"), 3, cluster(a=HERE, b=HERE, c=HERE), "c")
    assert shape(new) == "cab"
