"""A transaction becomes one commit: of its dataset, or of the datasets of all databases that it wrote.

Invariants: one change counter an LSN, so that no snapshot reader takes old pages for current ones; a failed publish
leaves every database with nothing gathered, and its pager made to drop its cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspm.engine.pyvfs import header
from dspm.engine.pyvfs.codes import During
from dspm.engine.pyvfs.overlay import Overlay
from dspm.errors import DspmError, UsageError
from dspm.txn.pages import PageNo
from dspm.txn.reservation import Reservation

if TYPE_CHECKING:
    from dspm.engine.pyvfs.database import Database


def publish(group: list[tuple[Database, bool]]) -> None:
    """Commits what the databases gathered, in all of their datasets or in none; each with whether its header tells its
    size, which SQLite has still to cut it to. Nothing gathered is no commit and no LSN, but a write transaction still
    asks whether it was the group's writer to the end.
    """
    try:
        _publish(group)
    except BaseException as e:
        failed = e if isinstance(e, DspmError) else _interrupted(e)
        for database, _ in group:
            database.give_up(failed)
        raise group[0][0].failed(failed, During.COMMIT) from e


def _interrupted(error: BaseException) -> UsageError:
    return UsageError(f"a commit was interrupted ({error!r}); its outcome is unknown", "read it back")


def _publish(group: list[tuple[Database, bool]]) -> None:
    written: list[tuple[Database, Overlay, Reservation, bool]] = []
    for database, by_header in group:
        overlay, reservation = database.overlay, database.reservation
        if overlay is None or reservation is None:
            continue
        if overlay.is_written:
            written.append((database, overlay, reservation, by_header))
        else:
            reservation.confirm()
    hidden = [_prepare(overlay, reservation, by_header) for _, overlay, reservation, by_header in written]
    parts = [(reservation, overlay.changed(), overlay.size) for _, overlay, reservation, _ in written]
    lsns = Reservation.commit_together(parts) if parts else []
    for (database, overlay, _, _), was_hidden, lsn in zip(written, hidden, lsns, strict=True):
        overlay.restart(overlay.size)
        database.committed(lsn, was_hidden)


def _prepare(overlay: Overlay, reservation: Reservation, by_header: bool) -> bool:
    """Makes what was gathered what it has to be; true if the header now differs from what the pager has cached."""
    before = reservation.read(PageNo(0))[: header.SIZE]
    if by_header:
        _cut_to_header(overlay)
    return _prepare_header(overlay, before)


def _cut_to_header(overlay: Overlay) -> None:
    """Cuts the database to the size that its header tells: at the end of a super-journal SQLite has still to do it."""
    size = header.database_size(overlay.read(0, header.SIZE))
    if size is not None and size < overlay.size:
        overlay.truncate(size)


def _prepare_header(overlay: Overlay, before: bytes) -> bool:
    """Makes the header of the new state what it has to be; true if it now differs from what the pager has cached."""
    found = overlay.read(0, min(header.SIZE, overlay.size))
    if len(found) < header.SIZE or not header.is_plain(found):
        return False
    shown = header.without_wal(found)
    new = shown
    if header.counter(shown) == header.counter(before):
        # SQLite counts once only while it keeps its own exclusive lock.
        new = header.with_counter(shown, header.counter(before) + 1)
    if new != found:
        overlay.write(0, new)
    return shown != found
