"""All files of a stopped node, each against its format and against the others.

Order: identity and catalog; base files' headers; the log; base files' pages, since the log says which of them it
replaces; the arena; then memory against disk (compare), when both are whole.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dspm.formats import arena as arenas
from dspm.formats import base as bases
from dspm.formats import compare, datadir, memory, slots
from dspm.formats.datadir import Identity
from dspm.formats.disk import Disk
from dspm.formats.files import hexadecimal
from dspm.formats.replay import History
from dspm.formats.report import Report
from dspm.netram.process import boot_id


def check(path: Path, arena: Path | None) -> Report:
    """Checks the node with this data directory; `arena` is its memory if that is not found by itself."""
    directory = datadir.of(path)
    file = datadir.find_arena(directory, arena)
    report = Report()
    with datadir.stopped(directory, file):
        identity = datadir.read_identity(directory, report)
        if identity and identity.suspect:
            report.problem(directory.identity, 24, "mark of a failed log", 0, "1: a write or sync of the log failed")
        datadir.read_catalog(directory, report)
        disk = Disk(directory, report)
        for history in disk.histories.values():
            _check_bases(disk, history, report)
        _check_lone_bases(disk, report)
        if file is None:
            report.note(directory.path, None, "no arena was found: only the disk was checked (--arena FILE names it)")
        else:
            _check_memory(file, identity, disk, report)
    return report


def _check_bases(disk: Disk, history: History, report: Report) -> None:
    if history.removed:
        return
    _check_checkpoint(disk, history, report)
    view = disk.view(history, history.tail.lsn)
    changed = {d.id for found in history.chain for d in found.record.datasets}
    for dataset, size in disk.sizes(history).items():
        base = disk.bases.get(dataset)
        if base is None:
            db = disk.directory.base / f"{dataset:016x}.db"
            report.problem(db, None, "base file of a checkpoint", "a file", "none")
            continue
        length = base.db.stat().st_size
        if length != size and dataset not in changed:
            report.problem(base.db, None, "length of the base file", f"{size}, the dataset's size", length)
        bases.check_pages(base, size, history.base.lsn, partial(view.touches, dataset), report)


def _check_checkpoint(disk: Disk, history: History, report: Report) -> None:
    """The log's newest checkpoint of a group is not below a sidecar's, and the same one where the LSN is."""
    logged = history.logged
    if logged is None:
        return
    for base in disk.bases.values():
        if base.header is None or base.header.group != history.group:
            continue
        named, what = base.header.checkpoint, "checkpoint of the sidecar"
        if named.lsn > logged.lsn:
            report.problem(base.idx, None, what, f"at most the log's, LSN {logged.lsn}", named.lsn)
        elif named.lsn == logged.lsn and named.hash != logged.hash:
            report.problem(base.idx, None, what, hexadecimal(logged.hash), hexadecimal(named.hash))
        if base.dataset not in logged.sizes:
            wanted = f"one of the {len(logged.sizes)} that the log's checkpoint names"
            report.problem(base.idx, None, "dataset of the sidecar", wanted, hexadecimal(base.dataset))
        elif named.lsn == logged.lsn and base.header.size != logged.sizes[base.dataset]:
            report.problem(base.idx, None, "size of the dataset", logged.sizes[base.dataset], base.header.size)


def _check_lone_bases(disk: Disk, report: Report) -> None:
    """Base files that no checkpoint in force names."""
    named = {d for h in disk.histories.values() for d in (() if h.removed else disk.sizes(h))}
    for base in disk.bases.values():
        if base.dataset not in named:
            what = "base file of an unfinished checkpoint, or of a removed or rebased group; recovery makes it anew"
            report.note(base.db, None, what)


def _check_memory(file: Path, identity: Identity | None, disk: Disk, report: Report) -> None:
    arena = arenas.read(file, report)
    if arena is None:
        return
    found = [memory.check_group(arena, slot, report) for slot in slots.read(arena, report).values()]
    if identity is not None and identity.store != arena.header.store:
        wanted = f"{hexadecimal(identity.store)}, as in {disk.directory.identity}"
        report.problem(file, 40, "store id of the arena", wanted, hexadecimal(arena.header.store))
        return
    if arena.header.boot.hex() != boot_id().replace("-", ""):
        report.note(file, 56, "the arena is of another boot of the kernel: the node will go on from its disk")
    if disk.log.damaged:
        report.note(disk.directory.log, None, "the log is damaged: it is not compared with the arena")
        return
    for group in found:
        if group.ring.intact:
            compare.check(file, group, disk, report)
    here = {group.slot.group for group in found}
    for history in disk.histories.values():
        if history.group not in here and not history.removed:
            what = f"group {hexadecimal(history.group)} is on disk and not in memory: it was being removed"
            report.note(disk.directory.path, None, what)
