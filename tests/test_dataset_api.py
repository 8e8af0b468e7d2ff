"""Dataset, Snapshot, Transaction: what each promises, on a real cluster."""

from __future__ import annotations

import mmap
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401

import dspm
from dspm.errors import (
    AccessError,
    BusyError,
    ConflictError,
    DspmError,
    FullError,
    NotFoundError,
    UsageError,
)
from dspm.txn import COMMIT_PAGES_MAX, PAGE_SIZE, Dataset, PageNo, list_datasets, locate, remove, rename

P0, P1, P2 = PageNo(0), PageNo(1), PageNo(2)
OTHER = {"cache.size": "1MiB"}
"""Settings that make a handle a client of its own, as another process would be."""

pytestmark = pytest.mark.usefixtures("cluster")


def page(fill: str) -> bytes:
    return fill.encode() * PAGE_SIZE


@pytest.fixture
def ds(cluster: Path) -> Iterator[Dataset]:  # noqa: F811
    with Dataset.open(f"d-{secrets.token_hex(4)}", create=True) as ds:
        yield ds


def put(ds: Dataset, at: int, fill: str) -> int:
    with ds.transaction() as t:
        t.write(PageNo(at), page(fill))
    return t.lsn


def test_open_and_names() -> None:
    assert dspm.Dataset is Dataset
    with pytest.raises(NotFoundError, match="nowhere"):
        Dataset.open("nowhere")
    with Dataset.open("shop/./orders", create=True, durability="memory", copies=1) as ds:
        entry = locate("shop/orders")
        assert (ds.name, ds.id) == ("shop/orders", entry.dataset)
        assert (entry.durability, entry.copies, entry.min_copies) == ("memory", 1, 1)
        assert (ds.lsn, ds.size) == (0, 0)
        with pytest.raises(DspmError, match="exists"):
            Dataset.open("shop/orders", create=True, exclusive=True)
        put(ds, 0, "x")
        rename("shop/orders", "shop/old orders é")
        assert put(ds, 1, "y") == 2
    with Dataset.open("shop/old orders é", readonly=True, settings=OTHER) as ds, ds.snapshot() as s:
        assert s.read(P0, 2) == page("x") + page("y")
        with pytest.raises(AccessError), ds.transaction():
            pass
    assert "shop/old orders é" in [e.name for e in list_datasets()]
    remove("shop/old orders é")
    assert "shop/old orders é" not in [e.name for e in list_datasets()]
    for bad in ("", "n" * 1025, "nul\0", "/"):
        with pytest.raises(UsageError):
            Dataset.open(bad, create=True)
    with pytest.raises(UsageError):
        Dataset.open("x", exclusive=True)
    with pytest.raises(UsageError):
        Dataset.open("x", create=True, copies=0, min_copies=1)
    with pytest.raises(UsageError, match="no-such-key"):
        Dataset.open("x", create=True, settings={"no-such-key": "1"})


def test_a_snapshot_never_changes(ds: Dataset) -> None:
    put(ds, 0, "a")
    s = ds.snapshot()
    for fill in "bcd":
        put(ds, 0, fill)
    with ds.transaction() as t:
        t.truncate(0)
    assert (s.lsn, s.size, s.page_count, s.read(P0)) == (1, PAGE_SIZE, 1, page("a"))
    assert (ds.lsn, ds.size) == (5, 0)
    s.release()
    s.release()
    with pytest.raises(UsageError, match="released"):
        s.read(P0)


def test_reading(ds: Dataset) -> None:
    with ds.transaction() as t:
        for i in range(600):
            t.write(PageNo(i), i.to_bytes(4, "big") * 1024)
        t.truncate(600 * PAGE_SIZE - 5)
    with Dataset.open(ds.name, settings=OTHER) as other, other.snapshot() as s:
        whole = s.read(P0, 602)
        assert len(whole) == 602 * PAGE_SIZE
        assert whole[600 * PAGE_SIZE - 5 :] == bytes(2 * PAGE_SIZE + 5)
        assert b"".join(content for _, content in s.pages()) == whole[: 600 * PAGE_SIZE]
        assert [(n, c[:4]) for n, c in s.pages(PageNo(598), PageNo(600))] == [
            (598, (598).to_bytes(4, "big")),
            (599, (599).to_bytes(4, "big")),
        ]
        assert s.read_many([PageNo(7), P0, PageNo(7)]) == whole[28672:32768] + whole[:4096] + whole[28672:32768]
        assert s.read(P0, 0) == b"" and s.read_many([]) == b""
        with mmap.mmap(-1, 8192) as m:
            s.read_into(m, PageNo(3))
            assert m[:] == whole[3 * 4096 : 5 * 4096]
        for bad in (bytes(4096), bytearray(4095)):
            with pytest.raises(UsageError):
                s.read_into(bad)
        for at, count in ((-1, 1), (0, -1), (2**60, 1)):
            with pytest.raises(UsageError):
                s.read(PageNo(at), count)


def test_a_transaction_sees_itself_and_nobody_else_does(ds: Dataset) -> None:
    put(ds, 0, "a")
    with ds.transaction() as t:
        t.write(P2, page("c"))
        assert t.read(P0, 3) == page("a") + page("\0") + page("c")
        assert (ds.lsn, ds.size, t.lsn, t.size) == (1, PAGE_SIZE, 1, 3 * PAGE_SIZE)
        assert t.commit() == 2
        assert ds.size == 3 * PAGE_SIZE
        t.truncate(PAGE_SIZE)
    assert (t.lsn, ds.lsn, ds.size) == (3, 3, PAGE_SIZE)
    with pytest.raises(UsageError, match="over"):
        t.write(P0, page("z"))


def test_rollback_and_nothing_written(ds: Dataset) -> None:
    put(ds, 0, "a")
    with pytest.raises(ZeroDivisionError), ds.transaction() as t:
        t.write(P0, page("b"))
        raise ZeroDivisionError
    with ds.transaction() as t:
        pass
    with ds.snapshot() as s:
        assert (t.lsn, s.lsn, s.read(P0)) == (1, 1, page("a"))


def test_what_was_cut_off_is_zeros_for_ever(ds: Dataset) -> None:
    with ds.transaction() as t:
        t.write(P0, page("a") * 3)
    with ds.transaction() as t:
        t.truncate(100)
        t.truncate(3 * PAGE_SIZE)
        assert t.read(P0, 3) == b"a" * 100 + bytes(3 * PAGE_SIZE - 100)
    with Dataset.open(ds.name, settings=OTHER) as other, other.snapshot() as s:
        assert s.read(P0, 3) == b"a" * 100 + bytes(3 * PAGE_SIZE - 100)
    with ds.transaction() as t:
        t.truncate(50)
    with ds.transaction() as t:
        t.truncate(PAGE_SIZE)
    with Dataset.open(ds.name, settings=OTHER) as other, other.snapshot() as s:
        assert s.read(P0) == b"a" * 50 + bytes(PAGE_SIZE - 50)


@pytest.mark.parametrize("settings", [None, OTHER], ids=["same client", "another client"])
def test_busy_conflict_and_turn(ds: Dataset, settings: dict[str, str] | None) -> None:
    put(ds, 0, "a")
    with Dataset.open(ds.name, settings=settings) as other:
        base = other.snapshot()
        with ds.transaction() as t:
            began = time.monotonic()
            with pytest.raises(BusyError), other.transaction(wait=0.3):
                pass
            assert 0.25 < time.monotonic() - began < 2
            with pytest.raises(BusyError), other.transaction(wait=0):
                pass
            t.write(P0, page("b"))
            waiting = threading.Thread(target=put, args=(other, 1, "w"))
            waiting.start()
            time.sleep(0.3)
        waiting.join(timeout=5)
        assert not waiting.is_alive() and ds.lsn == 3
        with pytest.raises(ConflictError, match="LSN 3"), other.transaction(base=base):
            pass
        with other.transaction(base=other.lsn) as t:
            t.write(P0, page("c"))
        assert ds.lsn == 4


def test_many_writers_lose_nothing(ds: Dataset) -> None:
    """Counters in one page, raised by threads of two clients and by other processes."""
    put(ds, 0, "\0")
    code = (
        "import sys; from dspm.txn import *\n"
        "def add(ds):\n"
        "    with ds.transaction(wait=30) as t:\n"
        "        n = int.from_bytes(t.read(PageNo(0))[:8], 'big') + 1\n"
        "        t.write(PageNo(0), n.to_bytes(8, 'big') + bytes(4088))\n"
        "if __name__ == '__main__':\n"
        "    with Dataset.open(sys.argv[1]) as ds:\n"
        "        for _ in range(25): add(ds)\n"
    )
    space: dict[str, object] = {"__name__": "threads"}
    exec(code, space)
    add = space["add"]
    assert callable(add)

    def work(settings: dict[str, str] | None) -> None:
        with Dataset.open(ds.name, settings=settings) as mine:
            for _ in range(25):
                add(mine)

    threads = [threading.Thread(target=work, args=(s,)) for s in (None, None, OTHER, OTHER)]
    processes = [subprocess.Popen([sys.executable, "-c", code, ds.name]) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    with ds.snapshot() as s:
        assert int.from_bytes(s.read(P0)[:8], "big") == 150 == s.lsn - 1


def test_limits(ds: Dataset) -> None:
    with ds.transaction() as t:
        for bad in (b"", bytes(100), bytes(PAGE_SIZE + 1)):
            with pytest.raises(UsageError):
                t.write(P0, bad)
        with pytest.raises(FullError, match="pages in one commit"):
            t.write(P0, bytes((COMMIT_PAGES_MAX + 1) * PAGE_SIZE))
        for size in (-1, 2**64):
            with pytest.raises(UsageError):
                t.truncate(size)
        t.truncate(2**40)
    with ds.snapshot() as s:
        assert s.size == 2**40 and s.read(PageNo(2**28 - 1)) == bytes(PAGE_SIZE)


def test_the_lease_makes_a_writer_quick(ds: Dataset) -> None:
    """A lone writer's transaction is one round trip, its snapshots none."""
    put(ds, 0, "a")
    before = ds.status()
    for fill in "bcdefghijk":
        put(ds, 0, fill)
        with ds.snapshot() as s:
            assert s.read(P0) == page(fill)
    after = ds.status()
    assert (after.lsn, after.lease, after.copies_now) == (11, "held", 2)
    assert after.round_trips - before.round_trips == 10


def test_an_engine_reserves_on_top_of_what_it_read(ds: Dataset) -> None:
    put(ds, 0, "a")
    reservation, base = ds.reservation(), ds.snapshot()
    before = ds.status().round_trips
    reservation.reserve(base)
    assert (reservation.held, ds.is_reserved, reservation.read(P0)) == (True, True, page("a"))
    with pytest.raises(BusyError), ds.transaction(wait=0):
        pass
    assert reservation.commit({0: page("b"), 1: page("c")}, 2 * PAGE_SIZE) == 2
    last = reservation.finish()
    assert ds.status().round_trips == before + 1, "the commit, and nothing else"
    put(ds, 0, "d")
    assert (last.lsn, last.size, last.read(P0, 2), base.read(P0)) == (
        2,
        2 * PAGE_SIZE,
        page("b") + page("c"),
        page("a"),
    )
    with pytest.raises(ConflictError, match="after LSN 2"):
        reservation.reserve(last)
    with pytest.raises(UsageError, match="not held"):
        reservation.finish()
    with pytest.raises(UsageError, match="not reserved"):
        reservation.commit({}, 0)
    with Dataset.open(f"{ds.name}-other", create=True) as other, pytest.raises(UsageError, match="another dataset"):
        other.reservation().reserve(ds.snapshot())
    with Dataset.open(ds.name, readonly=True) as reader, pytest.raises(AccessError):
        reader.reservation()


def test_a_held_lease_stays(ds: Dataset) -> None:
    put(ds, 0, "a")
    ds.hold(True)
    with Dataset.open(ds.name, settings=OTHER) as other:
        with pytest.raises(BusyError), other.transaction(wait=0.3):
            pass
        with other.snapshot() as s:
            assert s.read(P0) == page("a")
        assert put(ds, 0, "b") == 2
        ds.hold(False)
        assert put(other, 0, "c") == 3


def test_threads_share_a_snapshot_that_one_releases(ds: Dataset) -> None:
    with ds.transaction() as t:
        t.write(P0, os.urandom(PAGE_SIZE) * 64)
    s = ds.snapshot()
    released: list[str] = []

    def read() -> None:
        try:
            while True:
                s.read(P0, 64)
        except UsageError as e:
            released.append(str(e))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    s.release()
    for thread in threads:
        thread.join(timeout=5)
    assert released == ["the snapshot was released"] * 4


def test_a_forked_child_has_no_handles(ds: Dataset) -> None:
    code = f"""
import os, dspm
from dspm.errors import UsageError
from dspm.txn import PageNo
ds = dspm.Dataset.open({ds.name!r})
s = ds.snapshot()
with ds.transaction() as t:
    t.write(PageNo(0), bytes(4096))
    if (pid := os.fork()) == 0:
        for use in (lambda: ds.lsn, lambda: s.read(PageNo(0)), lambda: t.commit(), lambda: ds.status()):
            try: use()
            except UsageError as e: assert "fork" in str(e)
            else: os._exit(2)
        s.release(); ds.close(); del ds, s, t
        with dspm.Dataset.open({ds.name!r}) as own:
            os._exit(0 if own.lsn == 0 else 3)
    assert os.waitpid(pid, 0)[1] == 0
assert ds.lsn == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
