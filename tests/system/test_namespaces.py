"""Hosts of their own: two that know nothing of each other, and links that are cut during commits.

Everything runs on one kernel: what is cut is the network, one way or both, not a machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .child import Children, SqlError
from .cluster import Cluster, eventually, fresh
from .ledger import Ledger
from .netns import HandMade, Host, Link, ip, why_not

CUT_S = 1.5
WAYS = ["both", "to-left", "to-right"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """Three namespaces, removed whatever happens."""
    if reason := why_not():
        pytest.skip(reason)
    made: list[Host] = []
    try:
        for tag in ("a", "b", "c"):
            made.append(Host(tag))
        yield made
    finally:
        for host in made:
            host.end()


def test_two_hosts_with_their_own_clusters(hosts: list[Host], children: Children, tmp_path: Path) -> None:
    """Guards separation: the same name on two hosts is two databases; the other host's cluster cannot be reached."""
    made: list[Cluster] = []
    try:
        for number, host in enumerate(hosts[:2]):
            cluster = Cluster(tmp_path / f"c{number}", 2)
            cluster.prefix = host.prefix
            made.append(cluster)
            cluster.up()
        ledgers = [Ledger(c, children, "same.db") for c in made]
        writers = [ledger.writer(i) for ledger in ledgers for i in range(2)]
        for w in writers:
            w.wait(20)
        for w in writers:
            w.kill()
        assert [ledger.errors for ledger in ledgers] == [[], []]
        assert [sorted(ledger.acknowledged) for ledger in ledgers] == [[0, 1], [0, 1]]
        for ledger in ledgers:
            ledger.verify()
        stranger = children.session(made[0], DSPM_CONFIG=made[1].config, DSPM_COMMIT_TIMEOUT="1s")
        with pytest.raises(SqlError) as failed:
            stranger.open("same.db")
            stranger.sql("SELECT count(*) FROM ledger")
        assert failed.value.reason, failed.value
    finally:
        for cluster in made:
            cluster.end()


@pytest.fixture(scope="module")
def apart(hosts: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HandMade, Link]]:
    """Both nodes on host a, programs on host b; left is the nodes' end."""
    link = Link(hosts[0], hosts[1], 1)
    place = (hosts[0], link.left_ip)
    cluster = HandMade(tmp_path_factory.mktemp("apart") / "c", place, [place, place])
    yield cluster, link
    cluster.end()


@pytest.mark.parametrize("way", WAYS)
def test_a_program_is_cut_off(hosts: list[Host], apart: tuple[HandMade, Link], children: Children, way: str) -> None:
    """Guards commits in flight: cut off during commits, a program goes on when the link is healed; nothing is lost."""
    cluster, link = apart
    ledger = Ledger(cluster, children, fresh("cut"))
    inside = ledger.writer(1)
    cluster.prefix = hosts[1].prefix
    writer = ledger.writer(0, DSPM_COMMIT_TIMEOUT="60s")
    cluster.prefix = hosts[0].prefix
    for w in (writer, inside):
        w.wait(10)
    link.cut(way)
    try:
        inside.wait(20)  # waits out the other's lease, then goes on
        time.sleep(CUT_S)
    finally:
        link.heal(way)
    for w in (writer, inside):
        w.wait(20)
        w.kill()
    # The other went on meanwhile: what was cut off may have been too late for sure, or so long ago that nobody knows.
    late = ("another commit came first", "no longer kept")
    assert [e for e in ledger.errors if not any(text in e for text in late)] == [], "commit_timeout was not over"
    ledger.verify()


@pytest.mark.parametrize("way", WAYS)
def test_a_program_is_cut_off_for_longer_than_it_waits(
    hosts: list[Host], apart: tuple[HandMade, Link], children: Children, way: str
) -> None:
    """Guards outcomes: past commit_timeout COMMIT says that it does not know, and the row is there or not, for good."""
    cluster, link = apart
    ledger = Ledger(cluster, children, fresh("cut"))
    cluster.prefix = hosts[1].prefix
    writer = ledger.writer(0, DSPM_COMMIT_TIMEOUT="500ms")
    cluster.prefix = hosts[0].prefix
    writer.wait(10)
    link.cut(way)
    try:
        time.sleep(CUT_S)
    finally:
        link.heal(way)
    writer.wait(20)
    writer.kill()
    assert ledger.errors, "it was cut off for longer than commit_timeout"
    ledger.verify()


def triangle(hosts: list[Host], number: int) -> tuple[Link, Link, Link]:
    """A link between the first two hosts, and one from each of them to the third."""
    first = number * 3
    return Link(hosts[0], hosts[1], first), Link(hosts[0], hosts[2], first + 1), Link(hosts[1], hosts[2], first + 2)


@pytest.mark.parametrize("way", WAYS)
def test_two_members_are_cut_apart(hosts: list[Host], children: Children, tmp_path: Path, way: str) -> None:
    """Guards invariant 1 with a program that reaches both members while these do not reach each other."""
    number = 2 + WAYS.index(way)
    between, left, right = triangle(hosts, number)
    places = [(hosts[0], left.left_ip), (hosts[1], right.left_ip)]
    join = [(hosts[0], right.left_ip, between.right_ip), (hosts[1], left.left_ip, between.left_ip)]
    routes(join)
    cluster = HandMade(tmp_path / "c", places[0], places)
    try:
        cluster.prefix = hosts[2].prefix
        ledger = Ledger(cluster, children, fresh("apart"))
        writers = [ledger.writer(i, DSPM_COMMIT_TIMEOUT="60s") for i in range(2)]
        for w in writers:
            w.wait(10)
        between.cut(way)
        try:
            time.sleep(CUT_S)
        finally:
            between.heal(way)
            routes(join)  # those of a link that was down are gone
        for w in writers:
            w.wait(20)
            w.kill()
        assert ledger.errors == [], "commit_timeout was not over"
        ledger.verify()
    finally:
        cluster.end()


@pytest.mark.parametrize("way", WAYS)
def test_the_registry_hears_both_members_of_a_cut(
    hosts: list[Host], children: Children, tmp_path: Path, way: str
) -> None:
    """Guards against a set that waits out a cut between its members: the primary names whom it does not hear, the set
    goes on without that one while the link is cut, and nothing acknowledged is lost."""
    number = 20 + WAYS.index(way)
    between, left, right = triangle(hosts, number)
    places = [(hosts[0], left.left_ip), (hosts[1], right.left_ip)]
    join = [(hosts[0], right.left_ip, between.right_ip), (hosts[1], left.left_ip, between.left_ip)]
    routes([*join, (hosts[1], left.right_ip, right.right_ip)])
    cluster = HandMade(tmp_path / "c", (hosts[2], left.right_ip), places)
    try:
        cluster.prefix = hosts[2].prefix
        ledger = Ledger(cluster, children, fresh("heard"))
        writer = ledger.writer(DSPM_COMMIT_TIMEOUT="60s")
        writer.wait(10)
        primary, (backup,) = cluster.members(ledger.name)
        between.cut(way)
        try:
            eventually("the one that is not heard is dropped", lambda: cluster.members(ledger.name) == (primary, []))
            states = {n["name"]: n["state"] for n in cluster.status()["nodes"]}
            assert states == {primary: "serving", backup: "serving"}, "both are heard"
            writer.wait(20)
        finally:
            between.heal(way)
            routes(join)  # those of a link that was down are gone
        cluster.wait_whole(ledger.name)
        writer.wait(20)
        writer.kill()
        assert ledger.errors == [], "commit_timeout was not over"
        ledger.verify()
    finally:
        cluster.end()


def routes(join: list[tuple[Host, str, str]]) -> None:
    """Members reach each other by the addresses that programs use, over the link between them."""
    for host, address, via in join:
        ip("-n", host.name, "route", "replace", f"{address}/32", "via", via)
