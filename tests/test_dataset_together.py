"""Commits over several datasets: all or nothing, in the API as it is documented."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401

from dspm.errors import ConflictError, FullError, UsageError
from dspm.txn import PAGE_SIZE, Dataset, PageNo, Transaction, commit_together

P0, P1 = PageNo(0), PageNo(1)

pytestmark = pytest.mark.usefixtures("cluster")


def page(fill: str) -> bytes:
    return fill.encode() * PAGE_SIZE


def first(ds: Dataset) -> str:
    with ds.snapshot() as s:
        return s.read(P0)[:1].decode()


@pytest.fixture
def three(cluster: Path) -> Iterator[list[Dataset]]:  # noqa: F811
    with ExitStack() as stack:
        opened = [Dataset.open(f"t-{secrets.token_hex(4)}", create=True) for _ in range(3)]
        yield [stack.enter_context(ds) for ds in opened]


def begun(stack: ExitStack, datasets: list[Dataset]) -> list[Transaction]:
    return [stack.enter_context(ds.transaction()) for ds in datasets]


def test_all_are_committed_and_go_on(three: list[Dataset]) -> None:
    with ExitStack() as stack:
        transactions = begun(stack, three)
        for t, fill in zip(transactions, "abc", strict=True):
            t.write(P0, page(fill))
        lsns = commit_together(transactions)
        assert [t.lsn for t in transactions] == lsns == [ds.lsn for ds in three]
        assert [first(ds) for ds in three] == ["a", "b", "c"]
        assert [t.read(P0)[:1] for t in transactions] == [b"a", b"b", b"c"]
        # Another one is the decider, one has nothing to say, one is cut and grows again.
        transactions[0].write(P1, page("d"))
        transactions[2].truncate(10)
        transactions[2].truncate(2 * PAGE_SIZE)
        again = commit_together([transactions[2], transactions[1], transactions[0]])
        assert again[1] == lsns[1], "nothing changed, so no LSN"
        assert (again[0] > lsns[2], again[2] > lsns[0]) == (True, True)
        transactions[1].write(P0, page("e"))
    assert [first(ds) for ds in three] == ["a", "e", "c"]
    with three[2].snapshot() as s:
        assert (s.size, s.read(P0, 2).rstrip(b"\0")) == (2 * PAGE_SIZE, b"c" * 10)
    for ds in three:
        with ds.transaction() as t:
            t.write(P0, page("z"))


def test_few(three: list[Dataset]) -> None:
    assert commit_together([]) == []
    with three[0].transaction() as t:
        t.write(P0, page("a"))
        assert commit_together([t]) == [1]
        assert commit_together([t]) == [1]


def test_one_failure_is_all_of_theirs(three: list[Dataset]) -> None:
    with ExitStack() as stack:
        transactions = begun(stack, three)
        for t in transactions:
            t.write(P0, page("a"))
        big = bytes(1 << 20)
        for i in range(45):  # more than a node of these tests takes in one commit
            transactions[1].write(PageNo(i << 8), big)
        with pytest.raises(FullError):
            commit_together(transactions)
        assert [ds.lsn for ds in three] == [0, 0, 0]
        transactions[1].truncate(PAGE_SIZE)
        assert commit_together(transactions) == [ds.lsn for ds in three]
    with ExitStack() as stack:
        transactions = begun(stack, three)
        for t in transactions:
            t.write(P0, page("b"))
        stack.pop_all()
        transactions[2].__exit__(UsageError, None, None)  # it is over, and the others with it
        with pytest.raises(UsageError, match="over"):
            commit_together(transactions)
        transactions[0].__exit__(UsageError, None, None)
        transactions[1].__exit__(UsageError, None, None)


def test_misuse(three: list[Dataset]) -> None:
    with pytest.raises(UsageError, match="twice"), three[0].transaction() as t:
        t.write(P0, page("a"))
        commit_together([t, t])
    with Dataset.open(three[1].name, settings={"cache.size": "1MiB"}) as elsewhere, ExitStack() as stack:
        transactions = begun(stack, [three[0], elsewhere])
        for t in transactions:
            t.write(P0, page("b"))
        with pytest.raises(UsageError, match="different settings"):
            commit_together(transactions)
        stack.pop_all()
    assert first(three[0]) in "\0"
    assert three[1].lsn == 0


def test_a_base_that_is_old_conflicts_before_anything_is_written(three: list[Dataset]) -> None:
    with three[1].snapshot() as old:
        with three[1].transaction() as t:
            t.write(P0, page("a"))
        with three[0].transaction(), pytest.raises(ConflictError), three[1].transaction(base=old):
            pass
    assert three[0].lsn == 0


def test_threads_that_list_them_in_another_order(three: list[Dataset]) -> None:
    """Guards the locks of a commit: whatever the order, nobody waits for ever, and every sum is whole."""
    counts = [0, 0]

    def add(number: int) -> None:
        for _ in range(25):
            with ExitStack() as stack:
                transactions = begun(stack, three[:2])
                for t in transactions:
                    count = int.from_bytes(t.read(P0)[:8], "big") if t.size else 0
                    t.write(P0, (count + 1).to_bytes(8, "big").ljust(PAGE_SIZE, b"\0"))
                commit_together(transactions if number else transactions[::-1])
            counts[number] += 1

    threads = [threading.Thread(target=add, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [25, 25]
    for ds in three[:2]:
        with ds.snapshot() as s:
            assert int.from_bytes(s.read(P0)[:8], "big") == 50
