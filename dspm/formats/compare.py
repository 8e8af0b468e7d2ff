"""A group's memory against its disk: the log's reach, the records that both have, the content at the last one."""

from __future__ import annotations

from pathlib import Path

from dspm.formats import views
from dspm.formats.base import Base
from dspm.formats.disk import Disk
from dspm.formats.files import ZERO_SUM, hexadecimal
from dspm.formats.memory import Group
from dspm.formats.record import taken_back
from dspm.formats.replay import History
from dspm.formats.report import Report
from dspm.formats.views import Version, View


def check(file: Path, group: Group, disk: Disk, report: Report) -> None:
    """Reports where the arena `file` and the disk contradict each other about a group."""
    history = disk.histories.get(group.slot.group, History(group.slot.group))
    what = f"group {hexadecimal(group.slot.group)}"
    if not _same_life(file, what, group, history, disk, report):
        return
    if history.tail.lsn < group.flushed:
        torn, at = disk.log.torn or (disk.directory.log, None)
        wanted = f"records up to LSN {group.flushed}, which the arena's slot at byte {group.slot.at} calls flushed"
        report.problem(torn, at, f"log of {what}", wanted, f"up to LSN {history.tail.lsn}")
        return
    for lsn in range(max(group.ring.base.lsn, history.base.lsn), group.flushed + 1):
        here, there = group.ring.hash_at(lsn), history.hash_at(lsn)
        if here is not None and there is not None and here != there:
            wanted = f"hash {hexadecimal(there)}, as on disk"
            report.problem(file, None, f"record {lsn} of {what}", wanted, hexadecimal(here))
            return
    # What memory took back the log may have: it is compared as of before.
    at = group.flushed - (group.flushed in taken_back(group.ring.chain))
    if at < max(group.slot.horizon, group.ring.base.lsn, history.base.lsn):
        report.counts["groups whose content could not be compared"] += 1
        return
    here_view = views.of_memory(group.ring, group.frames, at)
    _Content(file, what, here_view, disk.view(history, at), history, disk.bases).check(report)


def _same_life(file: Path, what: str, group: Group, history: History, disk: Disk, report: Report) -> bool:
    """True when memory and disk are of one history, both whole or not; the next start mends what a crash left."""
    lacks = group.lacks
    if lacks is None and history.lacks:
        report.problem(file, group.slot.at + 72, what, "a base still to come, as the log says", "a whole group")
    elif lacks is not None and history.rebased != lacks:
        report.note(disk.directory.log, None, f"{what} was rebased to LSN {lacks.lsn}: the log is still to hear of it")
    elif lacks is not None and not history.lacks:
        report.note(file, group.slot.at + 72, f"the base of {what} has come: the next start takes it")
    else:
        return True
    return False


class _Content:
    """The content of a group at one LSN, as memory and as disk have it."""

    def __init__(
        self, file: Path, what: str, here: View, there: View, history: History, bases: dict[int, Base]
    ) -> None:
        self._file = file
        self._what = f"{what} at LSN {here.lsn}"
        self._here = here
        self._there = there
        self._checkpoint = history.base.lsn
        self._bases = bases

    def check(self, report: Report) -> None:
        """Sizes and pages."""
        here, there = self._here, self._there
        for dataset in here.sizes.keys() | there.sizes.keys():
            size, on_disk = here.sizes.get(dataset, 0), there.sizes.get(dataset, 0)
            if size != on_disk:
                what = f"{self._what}: dataset {hexadecimal(dataset)}"
                report.problem(self._file, None, what, f"{on_disk} bytes, as on disk", f"{size} bytes")
        for dataset, page in sorted(here.pages.keys() | there.pages.keys()):
            self._check_page(dataset, page, report)

    def _check_page(self, dataset: int, page: int, report: Report) -> None:
        base = self._of_base(dataset, page)
        on_disk = self._there.find(dataset, page) or base
        # Memory may have let go of what the checkpoint holds, and of nothing else.
        let_go: Version = base if on_disk[0] <= self._checkpoint else (0, ZERO_SUM)
        version = self._here.find(dataset, page) or let_go
        report.counts["pages compared"] += 1
        if version[1] != on_disk[1]:
            what = f"{self._what}: page {page} of dataset {hexadecimal(dataset)}"
            wanted = f"checksum {hexadecimal(on_disk[1])} of LSN {on_disk[0]}, as on disk"
            report.problem(self._file, None, what, wanted, f"{hexadecimal(version[1])} of LSN {version[0]}")

    def _of_base(self, dataset: int, page: int) -> Version:
        """A page of the base file; one that nobody wrote is zeros."""
        base = self._bases.get(dataset)
        lsn, summed = base.entry(page) if base is not None else (0, 0)
        return (lsn, summed) if lsn else (0, ZERO_SUM)
