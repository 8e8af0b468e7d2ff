"""Datasets against a model: a list of byte strings, one a commit.

Fault model: none; what is tested is that snapshots stay what they were, that commits are exactly what was written, and
that handles of one client, of another and of another process agree, whatever the order of calls; through transactions
as programs use them, and through reservations as engines do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401
from dataset_far import Far, far_side
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from dspm.errors import BusyError, ConflictError
from dspm.txn import PAGE_SIZE, Dataset, PageNo, Snapshot, page_count, remove
from dspm.txn.reservation import Reservation

NUMBERS = itertools.count()
PAGES = st.integers(0, 40)
SIZES = st.integers(0, 40 * PAGE_SIZE) | st.integers(0, 40).map(lambda n: n * PAGE_SIZE)
FILLS = st.binary(min_size=1, max_size=3) | st.just(b"\0")
STEP = st.tuples(st.just("write"), PAGES, FILLS, st.integers(1, 4)) | st.tuples(st.just("truncate"), SIZES)
STEPS = st.lists(STEP, max_size=5)
HANDLES = st.integers(0, 4)
"""Two of one client, two of clients of their own, one of another process."""
CLIENTS: list[dict[str, str] | None] = [
    None,
    None,
    {"cache.size": "1MiB"},
    {"cache.size": "2MiB", "cache.prefetch": "off"},
]


def content(fill: bytes, count: int) -> bytes:
    return (fill * (count * PAGE_SIZE))[: count * PAGE_SIZE]


def applied(state: bytes, step: tuple[object, ...]) -> bytes:
    if step[0] == "truncate":
        size = step[1]
        assert isinstance(size, int)
        return state[:size].ljust(size, b"\0")
    _, at, fill, count = step
    assert isinstance(at, int) and isinstance(fill, bytes) and isinstance(count, int)
    start, end = at * PAGE_SIZE, (at + count) * PAGE_SIZE
    grown = state.ljust(end, b"\0")
    if len(state) < end:
        grown = grown.ljust(page_count(len(grown)) * PAGE_SIZE, b"\0")
    return grown[:start] + content(fill, count) + grown[end:]


def whole(state: bytes) -> bytes:
    return state.ljust(page_count(len(state)) * PAGE_SIZE + PAGE_SIZE, b"\0")


def patiently(work: Callable[[], None]) -> None:
    """Tries again while the lease is on its way from somebody who has just used it."""
    for _ in range(100):
        with contextlib.suppress(BusyError):
            return work()
        time.sleep(0.02)
    work()


def reserved(ds: Dataset) -> Reservation:
    """A reservation on top of the newest state, when nobody else writes."""
    reservation = ds.reservation()
    patiently(lambda: reservation.reserve(reservation.snapshot(0.1)))
    return reservation


class Model(RuleBasedStateMachine):
    snapshots: Bundle[tuple[Snapshot, bytes]] = Bundle("snapshots")
    far: Far

    def __init__(self) -> None:
        super().__init__()
        self.name = f"model-{os.getpid()}-{next(NUMBERS)}"
        self.handles: list[Dataset] = []
        self.states = [b""]

    @initialize()
    def open(self) -> None:
        self.handles = [Dataset.open(self.name, create=True, settings=c) for c in CLIENTS]
        self.handles.append(self.far.open(self.name))  # type: ignore[arg-type]

    def teardown(self) -> None:
        for ds in self.handles:
            ds.close()
        if self.handles:
            remove(self.name)

    def is_elsewhere(self, s: Snapshot, handle: int) -> bool:
        """True if they are objects of different processes."""
        return isinstance(s, Far) != isinstance(self.handles[handle], Far)

    def change(self, handle: int, steps: list[tuple[object, ...]], commit: bool, twice: bool) -> None:
        state = self.states[-1]
        changed = False
        try:
            with self.handles[handle].transaction(base=len(self.states) - 1) as t:
                for i, step in enumerate(steps):
                    if step[0] == "write":
                        _, at, fill, count = step
                        t.write(PageNo(at), content(fill, count))  # type: ignore[arg-type]
                        changed = True
                    else:
                        changed |= step[1] != len(state) or changed
                        t.truncate(step[1])  # type: ignore[arg-type]
                    state = applied(state, step)
                    assert t.size == len(state)
                    assert t.read(PageNo(0), page_count(t.size) + 1) == whole(state)
                    if twice and i == 0:
                        before = t.lsn
                        if t.commit() > before:
                            self.states.append(state)
                        changed = False
                if not commit:
                    raise InterruptedError
        except InterruptedError:
            return
        assert t.lsn >= len(self.states) - 1
        if t.lsn == len(self.states):
            self.states.append(state)
        assert self.states[-1] == state and t.lsn == len(self.states) - 1

    @rule(handle=HANDLES, steps=STEPS, commit=st.booleans() | st.just(True), twice=st.booleans())
    def transaction(self, handle: int, steps: list[tuple[object, ...]], commit: bool, twice: bool) -> None:
        self.change(handle, steps, commit, twice)

    @rule(target=snapshots, handle=HANDLES, at=PAGES, fill=FILLS, size=SIZES, commit=st.booleans())
    def engine(self, handle: int, at: int, fill: bytes, size: int, commit: bool) -> tuple[Snapshot, bytes]:
        """An engine's transaction; what it showed last is a snapshot that stays."""
        ds, state = self.handles[handle], self.states[-1]
        reservation = reserved(ds)
        assert reservation.held and ds.is_reserved
        assert reservation.read(PageNo(0), page_count(len(state)) + 1) == whole(state)
        if commit:
            size = max(size, (at + 1) * PAGE_SIZE)
            # The pages between the old end and the new one are zeros; the tail of the old last page is already.
            state = applied(applied(state, ("truncate", size)), ("write", at, fill, 1))
            assert reservation.commit({at: content(fill, 1)} | self.cut(size), size) == len(self.states)
            self.states.append(state)
        else:
            reservation.confirm()
        last = reservation.finish()
        assert (last.lsn, last.size) == (len(self.states) - 1, len(state))
        return last, state

    def cut(self, size: int) -> dict[int, bytes]:
        """The last page that a smaller size leaves, without what lies beyond."""
        last, rest = divmod(size, PAGE_SIZE)
        before = self.states[-1]
        if not rest or size >= len(before):
            return {}
        return {last: before[last * PAGE_SIZE : size].ljust(PAGE_SIZE, b"\0")}

    @rule(taken=snapshots, handle=HANDLES)
    def outdated(self, taken: tuple[Snapshot, bytes], handle: int) -> None:
        """On top of an old state nobody writes; on top of the newest one everybody may."""
        s, state = taken
        if self.is_elsewhere(s, handle):
            return
        reservation = self.handles[handle].reservation()
        if s.lsn == len(self.states) - 1:
            patiently(lambda: reservation.reserve(s))
            assert reservation.finish().lsn == s.lsn
        else:
            with pytest.raises(ConflictError):
                patiently(lambda: reservation.reserve(s))
            assert not reservation.held and not self.handles[handle].is_reserved

    @rule(first=HANDLES, second=HANDLES, fill=FILLS)
    def queue(self, first: int, second: int, fill: bytes) -> None:
        """Who was refused keeps its place: its next snapshot is fresh enough to write on."""
        holder, waiter = reserved(self.handles[first]), self.handles[second].reservation()
        base = waiter.snapshot(0)
        with pytest.raises(BusyError):
            waiter.reserve(base)
        assert waiter.queued and not waiter.held
        state = applied(self.states[-1], ("write", 0, fill, 1))
        assert holder.commit({0: content(fill, 1)}, len(state)) == len(self.states)
        self.states.append(state)
        holder.forget()
        waiter.reserve(waiter.snapshot(5))
        assert waiter.read(PageNo(0)) == content(fill, 1)
        waiter.forget()
        assert not waiter.held and not self.handles[second].is_reserved

    @rule(target=snapshots, handle=HANDLES)
    def snapshot(self, handle: int) -> tuple[Snapshot, bytes]:
        s = self.handles[handle].snapshot()
        assert (s.lsn, s.size) == (len(self.states) - 1, len(self.states[-1]))
        return s, self.states[-1]

    @rule(taken=snapshots, at=PAGES, count=st.integers(0, 9))
    def read(self, taken: tuple[Snapshot, bytes], at: int, count: int) -> None:
        s, state = taken
        expected = state.ljust((at + count) * PAGE_SIZE, b"\0")[at * PAGE_SIZE : (at + count) * PAGE_SIZE]
        assert s.read(PageNo(at), count) == expected

    @rule(taken=consumes(snapshots))
    def release(self, taken: tuple[Snapshot, bytes]) -> None:
        s, state = taken
        assert b"".join(c for _, c in s.pages()) + bytes(PAGE_SIZE) == whole(state)
        s.release()

    @rule(taken=snapshots, handle=HANDLES)
    def conflict(self, taken: tuple[Snapshot, bytes], handle: int) -> None:
        s, state = taken
        if s.lsn == len(self.states) - 1:
            return
        with (
            pytest.raises(ConflictError),
            self.handles[handle].transaction(base=s.lsn if self.is_elsewhere(s, handle) else s),
        ):
            pass

    @rule(first=HANDLES, second=HANDLES)
    def busy(self, first: int, second: int) -> None:
        with self.handles[first].transaction(), pytest.raises(BusyError):
            self.handles[second].transaction(wait=0).__enter__()

    @invariant()
    def all_handles_agree(self) -> None:
        for ds in self.handles:
            assert ds.lsn == len(self.states) - 1


@pytest.mark.usefixtures("cluster")
def test_datasets_do_what_the_model_does(cluster: Path) -> None:  # noqa: F811
    with far_side() as Model.far:
        check()


def check() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    examples = int(os.environ.get("DATASET_EXAMPLES", "20"))
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Model,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=checks),
    )
