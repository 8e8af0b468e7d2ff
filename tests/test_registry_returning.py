"""Members that came back without their memory; and why a node is silent, told by its sockets."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from dspm.netram.messages import MemberEntry, SetEntry
from dspm.netram.registry.pulse import Heard, Way
from dspm.netram.registry.reach import KNOCK_TIMEOUT_S, LATE_S, knock
from dspm.netram.registry.returning import readmit

A, B, C = MemberEntry("a", 1), MemberEntry("b", 1), MemberEntry("c", 1)
A2, B2 = MemberEntry("a", 2), MemberEntry("b", 2)
BACK, KEPT = Heard(2, former=frozenset({1})), Heard(1)
ACTIVE = SetEntry(9, 5, "active", "a", [A, B], last_active=[A, B])
CHANGING = SetEntry(9, 6, "activating", "b", [B], [C], [A, B], [A])
JOINING = SetEntry(9, 6, "active", "b", [B], [C], [B], [A])


@pytest.mark.parametrize(
    ("durability", "heard"),
    [
        ("disk", {"a": KEPT, "b": KEPT}),
        ("disk", {"a": Heard(2), "b": KEPT}),  # damaged log
        ("disk", {"a": Heard(2, Way.GONE, former=frozenset({1})), "b": KEPT}),
        ("memory", {"a": BACK, "b": KEPT}),  # b holds what a lost
        ("memory", {"a": BACK}),  # b may
        ("memory", {"a": BACK, "b": Heard(2)}),
    ],
)
def test_who_does_not_go_on(durability: str, heard: dict[str, Heard]) -> None:
    for entry in (ACTIVE, CHANGING):
        assert readmit(entry, durability, heard) is None  # type: ignore[arg-type]


def test_in_the_same_generation_where_nothing_changes() -> None:
    back = readmit(ACTIVE, "memory", {"a": BACK, "b": BACK})
    assert back is not None and back.window and back.entry.history == 1
    assert (back.entry.generation, back.entry.state) == (5, "active")
    assert back.entry.members == back.entry.last_active == [A2, B2]
    back = readmit(ACTIVE, "disk", {"a": BACK, "b": KEPT})
    assert back is not None and not back.window and back.entry.history == 0
    assert back.entry.members == back.entry.last_active == [A2, B]


def test_a_damaged_log_holds_up_nobody_whose_log_is_intact() -> None:
    """Guards against a set that stays down after a power cut because of one damaged log of several."""
    damaged = Heard(2, former=frozenset({7}))
    back = readmit(ACTIVE, "disk", {"a": damaged, "b": BACK})
    assert back is not None and not back.window and back.entry.last_active == [A, B2], "a is not what it was"
    back = readmit(CHANGING, "disk", {"a": BACK, "b": damaged, "c": Heard(2)})
    assert back is not None and back.entry.last_active == [A2, B] and back.entry.generation == 7
    assert readmit(ACTIVE, "memory", {"a": damaged, "b": BACK}) is None, "a's memory was as good as b's"
    assert readmit(ACTIVE, "disk", {"a": damaged, "b": damaged}) is None


def test_in_the_middle_of_a_change_by_a_new_generation() -> None:
    """Guards against a set that stays down because the power went while it changed."""
    back = readmit(CHANGING, "memory", {"a": BACK, "b": BACK, "c": Heard(2)})
    assert back is not None and back.window and back.entry.history == 1
    e = back.entry
    assert (e.generation, e.state, e.primary, e.members, e.last_active) == (7, "activating", "b", [A2, B2], [A2, B2])
    assert (e.joining, e.dropped) == ([], [])
    back = readmit(JOINING, "memory", {"b": BACK})
    assert back is not None and (back.entry.generation, back.entry.members) == (7, [B2])
    assert (back.entry.joining, back.entry.dropped) == ([], [A])


def test_who_is_late_itself_knows_nothing() -> None:
    """Guards against a registry that takes its own lack of time for a node's silence."""

    async def body() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            host, port = full.getsockname()
            with socket.create_connection((host, port)):
                asyncio.get_running_loop().call_later(KNOCK_TIMEOUT_S / 2, time.sleep, KNOCK_TIMEOUT_S + LATE_S)
                assert await knock(f"{host}:{port}") is Way.SILENT

    asyncio.run(body())


async def told(address: str) -> Way:
    """What a knock says once this process was not late."""
    while (way := await knock(address)) is Way.SILENT:
        pass
    return way


def test_ways_of_silence() -> None:
    """What kernels do: a port without a listener refuses, one that nobody reads from accepts, a full one is mute."""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=16) as silent, socket.socket() as full:
            assert await told(f"127.0.0.1:{silent.getsockname()[1]}") is Way.FROZEN
            closed = silent.getsockname()[1]
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            with socket.create_connection(address):
                assert await told(f"127.0.0.1:{address[1]}") is Way.UNREACHABLE
        assert await told(f"127.0.0.1:{closed}") is Way.GONE

    asyncio.run(body())
