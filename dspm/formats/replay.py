"""What the log says of each group: its newest checkpoint and the records behind it (docs/formats/disk-log.md).

Replay goes by hash: a record counts where its predecessor's hash is. So void ones, and those behind a gap, never do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dspm.formats.files import hexadecimal
from dspm.formats.log import Batch, Checkpoint, Cut, Entry, Rebase
from dspm.formats.record import Record
from dspm.formats.report import Report
from dspm.formats.ring import EMPTY, RecordId


@dataclass(slots=True)
class Found:
    """A record of the log and where it stands."""

    record: Record
    batch: Batch
    entry: Entry


@dataclass(slots=True)
class History:
    """A group on disk. `chain` are the records behind `base` without a gap."""

    group: int
    base: RecordId = EMPTY
    logged: Checkpoint | None = None
    chain: list[Found] = field(default_factory=list)
    loose: list[Found] = field(default_factory=list)
    removed: bool = False
    rebased: RecordId | None = None
    lacks: bool = False

    @property
    def tail(self) -> RecordId:
        """The newest record."""
        if not self.chain:
            return self.base
        last = self.chain[-1].record
        return RecordId(last.generation, last.lsn, last.hash)

    def hash_at(self, lsn: int) -> int | None:
        """The hash of the record with that LSN, if it is behind the checkpoint, or is the checkpoint."""
        if lsn == self.base.lsn:
            return self.base.hash
        i = lsn - self.base.lsn - 1
        return self.chain[i].record.hash if 0 <= i < len(self.chain) else None

    def cut(self, lsn: int) -> None:
        """Records above the LSN are void."""
        if lsn >= self.base.lsn:
            del self.chain[lsn - self.base.lsn :]
        self.loose = [f for f in self.loose if f.record.lsn <= lsn]

    def add(self, found: Found) -> None:
        """A record, if it follows one that is here."""
        record = found.record
        if record.lsn > self.base.lsn and self.hash_at(record.lsn - 1) == record.predecessor:
            self.cut(record.lsn - 1)
            self.chain.append(found)
        elif record.lsn > self.base.lsn:
            self.loose.append(found)

    def checkpoint(self, said: Checkpoint) -> None:
        """What it covers is dropped; if the history is another one there, all of it."""
        self.logged = said
        if said.lsn < self.base.lsn:
            return
        known = self.hash_at(said.lsn)
        self.chain = self.chain[said.lsn - self.base.lsn :] if known == said.hash else []
        self.loose = [f for f in self.loose if f.record.lsn > said.lsn]
        self.base, self.lacks = RecordId(said.generation, said.lsn, said.hash), False

    def rebase(self, said: Rebase) -> None:
        """All of before is void, what sidecars say included; the base is still to come."""
        self.chain, self.loose, self.logged, self.removed = [], [], None, False
        self.base = self.rebased = RecordId(said.generation, said.lsn, said.hash)
        self.lacks = True

    def remove(self) -> None:
        """The group is no more."""
        self.chain, self.loose, self.base, self.logged, self.removed = [], [], EMPTY, None, True
        self.rebased, self.lacks = None, False


def replay(entries: list[tuple[Batch, Entry]], starts: dict[int, RecordId], report: Report) -> dict[int, History]:
    """The history of each group. `starts` are the checkpoints that sidecars name."""
    histories = {group: History(group, base) for group, base in starts.items()}
    for batch, entry in entries:
        said = entry.said
        history = histories.setdefault(said.group, History(said.group))
        if isinstance(said, Record):
            history.add(Found(said, batch, entry))
        elif isinstance(said, Cut):
            history.cut(said.lsn)
        elif isinstance(said, Checkpoint):
            history.checkpoint(said)
        elif isinstance(said, Rebase):
            history.rebase(said)
        else:
            history.remove()
    for history in histories.values():
        _check_loose(history, report)
    return histories


def _check_loose(history: History, report: Report) -> None:
    """A record that nothing made void and that follows nothing is behind a gap."""
    for found in history.loose:
        record = found.record
        if record.lsn <= history.tail.lsn:
            continue
        what = f"record {record.lsn} of group {hexadecimal(history.group)}"
        wanted = f"its predecessor {hexadecimal(record.predecessor)} at LSN {record.lsn - 1}"
        report.problem(
            found.batch.segment.path, found.entry.at, what, wanted, f"a history that ends at {history.tail.lsn}"
        )
        return
