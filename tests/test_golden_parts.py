"""The parts of `dspm-py` by themselves: what is gathered, kept, patched and answered, whatever SQLite asks for."""

from __future__ import annotations

import secrets

import apsw
import pytest
from clusters import cluster, config  # noqa: F401
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dspm
from dspm import errors
from dspm.engine.pyvfs import codes, header, journals, names
from dspm.engine.pyvfs.codes import During
from dspm.engine.pyvfs.database import Database
from dspm.engine.pyvfs.journals import Journal
from dspm.engine.pyvfs.names import Kind
from dspm.engine.pyvfs.overlay import Overlay
from dspm.engine.pyvfs.shared import Shared
from dspm.netram.names import clean
from dspm.txn import PAGE_SIZE, Dataset, page_count
from dspm.txn.reservation import Reservation

AT = st.integers(0, 6 * PAGE_SIZE) | st.integers(0, 12).map(lambda n: n * PAGE_SIZE // 2)
WRITE = st.tuples(st.just("write"), AT, st.integers(1, 2 * PAGE_SIZE), st.integers(0, 255))
TRUNCATE = st.tuples(st.just("truncate"), AT, st.just(0), st.just(0))


def padded(content: bytes) -> bytes:
    return content.ljust(page_count(len(content)) * PAGE_SIZE, b"\0")


@settings(max_examples=300, deadline=None)
@example(size=1, steps=[("truncate", 0, 0, 0), ("truncate", 1, 0, 0)], look=(0, 0))
@given(size=AT, steps=st.lists(WRITE | TRUNCATE, max_size=8), look=st.tuples(AT, AT))
def test_an_overlay_is_a_file(size: int, steps: list[tuple[str, int, int, int]], look: tuple[int, int]) -> None:
    """Also what is committed: the pages below, with the changed ones over them, are the file."""
    model = bytes(range(1, 252)) * (size // 251 + 1)
    model = model[:size]
    below = padded(model)
    overlay = Overlay(lambda page: below[page * PAGE_SIZE : (page + 1) * PAGE_SIZE], size)
    for what, at, length, fill in steps:
        if what == "write":
            overlay.write(at, bytes([fill]) * length)
            model = model[:at].ljust(at, b"\0") + bytes([fill]) * length + model[at + length :]
        else:
            overlay.truncate(at)
            model = model[:at].ljust(at, b"\0")
        assert overlay.size == len(model)
        assert overlay.read(*look) == model[look[0] : sum(look)].ljust(look[1], b"\0")
    pages = {n: below[n * PAGE_SIZE : (n + 1) * PAGE_SIZE] for n in range(page_count(size))} | overlay.changed()
    assert all(number < page_count(overlay.size) for number in overlay.changed())
    stored = b"".join(pages.get(n, bytes(PAGE_SIZE)) for n in range(page_count(overlay.size)))
    assert stored == padded(model)
    if below != padded(model) or size != len(model):
        assert overlay.is_written


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=99)), min_size=1, max_size=9))
def test_a_journal_reads_back_over_the_limit_of_its_memory(writes: list[tuple[int, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as m:
        m.setattr(journals, "MEMORY_MAX", 200)
        journal, model = Journal(), b""
    assert journal.is_blank
    for at, data in writes:
        journal.write(at, data)
        model = model[:at].ljust(at, b"\0") + data + model[at + len(data) :]
        assert (journal.size, journal.read(0, 999), journal.read(5, 7)) == (len(model), model, model[5:12])
    assert journal.is_blank == (model[0] == 0)
    journal.truncate(len(model) // 2)
    assert journal.read(0, 999) == model[: len(model) // 2]
    journal.truncate(0)
    assert journal.is_blank and journal.size == 0


KINDS = [
    errors.DspmError,
    errors.UsageError,
    errors.UnavailableError,
    errors.DataError,
    errors.OutcomeUnknownError,
    errors.TooOldError,
    errors.ConflictError,
    errors.BusyError,
    errors.FullError,
    errors.AuthError,
    errors.AccessError,
    errors.ProtocolError,
    errors.NotFoundError,
    errors.RefusedError,
]


@pytest.mark.parametrize("kind", KINDS)
def test_result_codes(kind: type[errors.DspmError]) -> None:
    error = kind("why")
    for during in (During.WRITE, During.COMMIT):
        assert codes.code(error, during) & 0xFF in (apsw.SQLITE_IOERR, apsw.SQLITE_FULL), "SQLite has to roll back"
    for during in During:
        raised = codes.failure("why", codes.code(error, during))
        assert (str(raised), raised.extendedresult) == ("why", codes.code(error, during))
    assert (codes.code(error, During.LOCK) == apsw.SQLITE_BUSY) == (kind is errors.BusyError)


def test_outages_and_named_errors() -> None:
    outage = errors.UnavailableError("")
    expected = {
        During.READ: apsw.SQLITE_IOERR_READ,
        During.LOCK: apsw.SQLITE_IOERR_LOCK,
        During.OPEN: apsw.SQLITE_CANTOPEN,
    }
    assert {d: codes.code(outage, d) for d in expected} == expected
    assert codes.code(errors.TooOldError(""), During.READ) == apsw.SQLITE_BUSY_SNAPSHOT
    assert codes.code(errors.AuthError(""), During.OPEN) == apsw.SQLITE_AUTH
    assert codes.code(errors.AccessError(""), During.OPEN) == apsw.SQLITE_PERM
    assert codes.code(errors.ProtocolError(""), During.LOCK) == apsw.SQLITE_PROTOCOL
    assert codes.text("a.db", errors.FullError("no room", "make some")) == "a.db: no room\nhint: make some"


def test_kinds_of_names() -> None:
    kinds = {
        "a.db": Kind.MAIN,
        "a.db-journal": Kind.JOURNAL,
        "a.db-wal": Kind.WAL,
        "a.db-mj01A2B39CD": Kind.SUPER,
        "a.db-mj01A2B38CD": Kind.MAIN,
        "-mj01A2B39CD": Kind.MAIN,
        "": Kind.MAIN,
    }
    assert {name: names.kind(name) for name in kinds} == kinds
    for typed, cleaned in {"../../a": "../../a", "/../a": "/a", "a/../b c.db": "b c.db", "": "", ".": ""}.items():
        assert clean(typed) == clean(cleaned) == cleaned


def test_the_header() -> None:
    plain = bytearray(b"SQLite format 3\0".ljust(100, b"\0"))
    plain[16:20] = b"\2\0\2\2"
    plain[24:28] = plain[92:96] = (7).to_bytes(4, "big")
    plain[28:32] = (9).to_bytes(4, "big")
    whole = bytes(plain)
    assert header.without_wal(whole)[18:20] == b"\1\1" and header.without_wal(whole[:19]) == whole[:19]
    assert header.without_wal(b"\2" * 100) == b"\2" * 100, "an encrypted page is left alone"
    assert header.database_size(whole) == 9 * 512 and header.database_size(bytes(100)) is None
    counted = header.with_counter(whole, 1 << 32)
    assert (header.counter(counted), header.database_size(counted)) == (0, 9 * 512)
    plain[92] = 1
    assert header.database_size(header.with_counter(bytes(plain), 8)) is None, "it was not valid before"


@pytest.fixture
def database(cluster: object) -> Database:  # noqa: F811
    name = f"part-{secrets.token_hex(5)}"
    return Database(Shared(), name, Dataset.open(name, create=True), read_only=False)


def test_writing_without_a_reservation_is_an_error(database: Database) -> None:
    for level in (apsw.SQLITE_LOCK_NONE, apsw.SQLITE_LOCK_SHARED):
        database.xLock(level)
        for misuse in (
            lambda: database.xWrite(b"1", 0),
            lambda: database.xTruncate(0),
            lambda: database.xSync(2),
            lambda: database.xFileControl(apsw.SQLITE_FCNTL_SYNC, 0),
            lambda: database.xFileControl(apsw.SQLITE_FCNTL_COMMIT_PHASETWO, 0),
        ):
            with pytest.raises(apsw.IOError, match="without a write lock"):
                misuse()
    assert database.dataset.lsn == 0


def test_what_is_not_published_is_gone_with_the_lock(database: Database) -> None:
    for keep in (apsw.SQLITE_LOCK_NONE, apsw.SQLITE_LOCK_SHARED):
        for level in (apsw.SQLITE_LOCK_SHARED, apsw.SQLITE_LOCK_RESERVED, apsw.SQLITE_LOCK_EXCLUSIVE):
            database.xLock(level)
        database.xWrite(b"lost" * 1000, 500)
        assert database.xFileSize() == 4500
        database.xFileControl(apsw.SQLITE_FCNTL_SYNC, 0)
        database.xSync(2)
        database.xUnlock(keep)
        assert (database.xFileSize(), database.dataset.lsn, database.dataset.is_reserved) == (0, 0, False)
    database.xClose()


def test_a_refused_writer_keeps_its_place_until_it_only_reads(database: Database) -> None:
    other_client = Dataset.open(database.name, settings={"cache.size": "1MiB"})
    with other_client.transaction(wait=5):
        database.xLock(apsw.SQLITE_LOCK_SHARED)
        with pytest.raises(apsw.BusyError):
            database.xLock(apsw.SQLITE_LOCK_RESERVED)
        assert database._reservation is not None and database._reservation.queued
        database.xUnlock(apsw.SQLITE_LOCK_NONE)
        assert database._reservation.queued
        database.xLock(apsw.SQLITE_LOCK_SHARED)
        database.xUnlock(apsw.SQLITE_LOCK_NONE)
        assert not database._reservation.queued
    database.xClose()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), MemoryError(), errors.UnavailableError("cut off")])
def test_a_commit_that_is_interrupted_rolls_back(fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """apsw passes what it does not know on as ERROR, which would leave the transaction open without its pages."""
    db = dspm.connect(f"file:part-{secrets.token_hex(5)}?vfs=dspm-py")
    db.execute("CREATE TABLE t(a)")
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES('lost')")

    def fail(*_: object) -> int:
        raise fault

    with monkeypatch.context() as m:
        m.setattr(Reservation, "commit_together", fail)
        with pytest.raises(apsw.IOError) as caught:
            db.execute("COMMIT")
    unknown = not isinstance(fault, errors.DspmError)
    assert ("its outcome is unknown" in str(caught.value)) == unknown
    assert not db.in_transaction
    assert db.execute("SELECT * FROM t").fetchall() == []
    db.execute("INSERT INTO t VALUES('next')")
    assert db.execute("SELECT * FROM t").fetchall() == [("next",)]
