"""A node's disk as a whole: base files and log, and what they say together of each group (docs/formats/disk-log.md)."""

from __future__ import annotations

from dspm.formats import base as bases
from dspm.formats import views
from dspm.formats.datadir import DataDir
from dspm.formats.log import Log
from dspm.formats.replay import History, replay
from dspm.formats.report import Report
from dspm.formats.ring import RecordId


class Disk:
    """What base files and log of a node say."""

    def __init__(self, directory: DataDir, report: Report) -> None:
        self.directory = directory
        self.log = Log(directory.log)
        self.bases = bases.find(directory.base, report)
        starts: dict[int, RecordId] = {}
        for base in self.bases.values():
            if base.header is not None:
                group, named = base.header.group, base.header.checkpoint
                starts[group] = max(starts.get(group, named), named, key=lambda c: c.lsn)
        entries = [(batch, entry) for batch in self.log.batches(report) for entry in batch.entries]
        report.counts["log entries"] = len(entries)
        self.starts = starts
        self.histories = replay(entries, starts, report)

    def sizes(self, history: History) -> dict[int, int]:
        """The sizes of a group's datasets at its checkpoint; none while its base is still to come."""
        if history.lacks:
            return {}
        found = {b.dataset: b.header.size for b in self.bases.values() if b.header and b.header.group == history.group}
        if history.logged and history.logged.lsn == history.base.lsn:
            found |= history.logged.sizes
        return found

    def view(self, history: History, lsn: int) -> views.View:
        """What the log says behind the checkpoint."""
        return views.of_records([f.record for f in history.chain], self.sizes(history), lsn)
