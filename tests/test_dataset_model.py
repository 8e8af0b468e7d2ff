"""Datasets against a model: a list of byte strings, one a commit.

Fault model: none; what is tested is that snapshots stay what they were, that commits are exactly what was written, and
that handles of one client and of another agree, whatever the order of calls.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401
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

NUMBERS = itertools.count()
PAGES = st.integers(0, 40)
SIZES = st.integers(0, 40 * PAGE_SIZE) | st.integers(0, 40).map(lambda n: n * PAGE_SIZE)
FILLS = st.binary(min_size=1, max_size=3) | st.just(b"\0")
STEP = st.tuples(st.just("write"), PAGES, FILLS, st.integers(1, 4)) | st.tuples(st.just("truncate"), SIZES)
STEPS = st.lists(STEP, max_size=5)
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


class Model(RuleBasedStateMachine):
    snapshots: Bundle[tuple[Snapshot, bytes]] = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.name = f"model-{os.getpid()}-{next(NUMBERS)}"
        self.handles: list[Dataset] = []
        self.states = [b""]

    @initialize()
    def open(self) -> None:
        self.handles = [Dataset.open(self.name, create=True, settings=c) for c in CLIENTS]

    def teardown(self) -> None:
        for ds in self.handles:
            ds.close()
        if self.handles:
            remove(self.name)

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

    @rule(handle=st.integers(0, 3), steps=STEPS, commit=st.booleans() | st.just(True), twice=st.booleans())
    def transaction(self, handle: int, steps: list[tuple[object, ...]], commit: bool, twice: bool) -> None:
        self.change(handle, steps, commit, twice)

    @rule(target=snapshots, handle=st.integers(0, 3))
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

    @rule(taken=snapshots, handle=st.integers(0, 3))
    def conflict(self, taken: tuple[Snapshot, bytes], handle: int) -> None:
        s, state = taken
        if s.lsn == len(self.states) - 1:
            return
        with pytest.raises(ConflictError), self.handles[handle].transaction(base=s):
            pass

    @rule(first=st.integers(0, 3), second=st.integers(0, 3))
    def busy(self, first: int, second: int) -> None:
        with self.handles[first].transaction(), pytest.raises(BusyError):
            self.handles[second].transaction(wait=0).__enter__()

    @invariant()
    def all_handles_agree(self) -> None:
        for ds in self.handles:
            assert ds.lsn == len(self.states) - 1


@pytest.mark.usefixtures("cluster")
def test_datasets_do_what_the_model_does(cluster: Path) -> None:  # noqa: F811
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    examples = int(os.environ.get("DATASET_EXAMPLES", "20"))
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Model,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=checks),
    )
