"""`dspm fsck` and `dspm log dump` on the disk of a member that was rebased, made here from docs/formats alone.

Guards against: files of before the rebase that are taken for the group's, a group that is called damaged because its
base is still to come, and a base that is not there though the log names it.
"""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Run

from dspm.formats.datadir import DataDir
from dspm.formats.disk import Disk
from dspm.formats.files import checksum, low_half
from dspm.formats.fsck import check
from dspm.formats.layout import (
    BATCH_END,
    HEADER,
    HEADER_MAGIC,
    IDENTITY,
    IDENTITY_MAGIC,
    PAGE,
    PAIR,
    SEGMENT,
    SEGMENT_MAGIC,
    SIDECAR,
    SIDECAR_MAGIC,
    VERSION,
    WORD,
    Kind,
)
from dspm.formats.report import Report
from dspm.formats.ring import RecordId

GROUP, DATASET, SALT = 77, 5, 99
BEFORE, REBASED, LATER = RecordId(1, 40, 11), RecordId(3, 12, 22), RecordId(3, 13, 33)


def summed(raw: bytes) -> bytes:
    return raw + WORD.pack(checksum(raw))


def entry(kind: Kind, at: RecordId, meta: bytes) -> bytes:
    fields = (kind, 0, len(meta), 0, 1, 0 if kind == Kind.BATCH_END else GROUP, at.generation, at.lsn, SALT)
    raw = HEADER.pack(HEADER_MAGIC, VERSION, *fields, 0, low_half(meta))[:56]
    return raw + low_half(raw).to_bytes(4, "little") + low_half(meta).to_bytes(4, "little") + meta


def rebase(to: RecordId) -> bytes:
    return entry(Kind.REBASE, to, WORD.pack(to.hash))


def checkpoint(at: RecordId, size: int) -> bytes:
    return entry(Kind.CHECKPOINT, at, WORD.pack(at.hash) + PAIR.pack(DATASET, size))


def node(path: Path, *entries: bytes) -> Path:
    """A data directory whose log has one batch."""
    (path / "log").mkdir(parents=True)
    (path / "base").mkdir()
    (path / "lock").touch()
    identity = IDENTITY.pack(IDENTITY_MAGIC, VERSION, 1, 7, 0, bytes(15), bytes(128), 0)
    (path / "node").write_bytes(summed(identity[:-8]))
    batch = b"".join(entries)
    end = BATCH_END.pack(len(entries), len(batch), 1, checksum(batch))
    batch += entry(Kind.BATCH_END, RecordId(0, 0, 0), end)
    size = 1 << 20
    header = summed(SEGMENT.pack(SEGMENT_MAGIC, VERSION, 0, 1, SALT, size, 0)[:-8])
    (path / "log" / "00000001.seg").write_bytes((header.ljust(PAGE, b"\0") + batch).ljust(size, b"\0"))
    return path


def base_file(path: Path, at: RecordId, size: int) -> None:
    """A dataset of zeros that nobody wrote, named as of a checkpoint."""
    header = SIDECAR.pack(SIDECAR_MAGIC, VERSION, 0, 1, GROUP, DATASET, *at, size, 0, 0)
    (path / "base" / f"{DATASET:016x}.idx").write_bytes(bytes(512) + summed(header[:-8]))
    (path / "base" / f"{DATASET:016x}.db").write_bytes(bytes(size))


def test_files_of_before_are_nobodys(tmp_path: Path) -> None:
    path = node(tmp_path / "n", checkpoint(BEFORE, 2 * PAGE), rebase(REBASED))
    base_file(path, BEFORE, 2 * PAGE)
    history = Disk(DataDir(path), Report()).histories[GROUP]
    assert (history.tail, history.lacks, history.removed) == (REBASED, True, False)
    report = check(path, None)
    assert report.sound, report.problems
    assert any("rebased" in str(note) for note in report.notes), report.notes


def test_the_base_that_came_is_checked(tmp_path: Path) -> None:
    entries = (checkpoint(BEFORE, 2 * PAGE), rebase(REBASED), checkpoint(LATER, 3 * PAGE))
    path = node(tmp_path / "n", *entries)
    missing = check(path, None)
    assert "base file of a checkpoint" in str(missing.problems[0])
    base_file(path, LATER, 3 * PAGE)
    whole = check(path, None)
    assert whole.sound and whole.counts["base pages"] == 3, whole.problems
    history = Disk(DataDir(path), Report()).histories[GROUP]
    assert (history.tail, history.lacks) == (LATER, False)


def test_the_dump_shows_it(tmp_path: Path, dspm: Run) -> None:
    path = node(tmp_path / "n", rebase(REBASED))
    lines = [json.loads(line) for line in dspm("log", "dump", path, "--json").stdout.splitlines()]
    shown = {"line": "rebase", "offset": PAGE, "group": GROUP, "generation": 3, "lsn": 12, "hash": 22}
    assert shown in lines, lines
