"""Base files and their sidecars (docs/formats/base-file.md): each page of ID.db against its entry in ID.idx."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dspm.formats.files import ZERO_SUM, checksum, expect, hexadecimal, pages_of, read_at
from dspm.formats.layout import ENTRIES_AT, ENTRY, ENTRY_PLACE, PAGE, SIDECAR, SIDECAR_COPY, SIDECAR_MAGIC, VERSION
from dspm.formats.report import Malformed, Report
from dspm.formats.ring import RecordId

PAGES_AT_ONCE = 256
_NAME = re.compile(r"([0-9a-f]{16})\.(db|idx)")


@dataclass(frozen=True, slots=True)
class SidecarHeader:
    """The header that counts."""

    sequence: int
    group: int
    dataset: int
    checkpoint: RecordId
    size: int


@dataclass(frozen=True, slots=True)
class Base:
    """The two files of a dataset; `header` is None while the first checkpoint was not finished."""

    dataset: int
    db: Path
    idx: Path
    header: SidecarHeader | None

    def entry(self, page: int) -> tuple[int, int]:
        """LSN and checksum of a page's content; zeros for one that nobody wrote, or behind the end of the sidecar."""
        with open(self.idx, "rb") as f:
            raw = read_at(f.fileno(), ENTRY.size, ENTRIES_AT + page * ENTRY.size)
        lsn, summed = ENTRY.unpack(raw) if len(raw) == ENTRY.size else (0, 0)
        return lsn, summed ^ _version_sum(page, lsn) if lsn else summed


def _version_sum(page: int, lsn: int) -> int:
    """What an entry's checksum is xor'ed with: it covers page number and LSN as well."""
    return checksum(ENTRY_PLACE.pack(page, lsn))


def find(directory: Path, report: Report) -> dict[int, Base]:
    """The base files of each dataset."""
    found: dict[int, Base] = {}
    names = {m[1] for p in (directory.iterdir() if directory.is_dir() else []) if (m := _NAME.fullmatch(p.name))}
    for name in sorted(names):
        db, idx = directory / f"{name}.db", directory / f"{name}.idx"
        dataset = int(name, 16)
        if not idx.exists():
            report.note(db, None, "base file without a sidecar: its making or its removal was cut short")
            continue
        header = _read_header(idx, dataset, report)
        if header is not None and not db.exists():
            report.problem(db, None, "base file of a sidecar that names a checkpoint", "a file", "none")
        elif db.exists():
            found[dataset] = Base(dataset, db, idx, header)
    report.counts["base datasets"] = len(found)
    return found


def _read_header(path: Path, dataset: int, report: Report) -> SidecarHeader | None:
    with open(path, "rb") as f:
        raw = read_at(f.fileno(), 2 * SIDECAR_COPY, 0)
    copies = []
    for at in (0, SIDECAR_COPY):
        copy = raw[at : at + SIDECAR.size]
        if not any(copy):
            continue
        try:
            copies.append(_header_copy(copy, dataset))
        except Malformed as bad:
            report.malformed(path, at, bad)
    return max(copies, key=lambda c: c.sequence, default=None)


def _header_copy(raw: bytes, dataset: int) -> SidecarHeader:
    if len(raw) < SIDECAR.size:
        raise Malformed("header of a sidecar", f"{SIDECAR.size} bytes", len(raw))
    magic, version, _, sequence, group, own, generation, lsn, hash_, size, _, summed = SIDECAR.unpack(raw)
    if magic != SIDECAR_MAGIC or version != VERSION:
        raise Malformed("header of a sidecar", f"magic DSPMBASE, version {VERSION}", raw[:12].hex(" "))
    expect("checksum of a sidecar's header", checksum(raw[:-8]), summed, SIDECAR.size - 8)
    expect("dataset of a sidecar", dataset, own, 32)
    return SidecarHeader(sequence, group, own, RecordId(generation, lsn, hash_), size)


def check_pages(base: Base, size: int, newest: int, shadowed: Callable[[int], bool], report: Report) -> None:
    """Each page of ID.db fits its entry, unless a record behind the checkpoint at LSN `newest` replaces it."""
    with open(base.db, "rb") as db, open(base.idx, "rb") as idx:
        # Behind the end of both files everything is zeros, which fit: a size in a header is not trusted for work.
        entries_here = (os.fstat(idx.fileno()).st_size - ENTRIES_AT) // ENTRY.size
        total = min(pages_of(size), max(pages_of(os.fstat(db.fileno()).st_size), entries_here))
        report.counts["base pages"] += total
        for first in range(0, total, PAGES_AT_ONCE):
            count = min(PAGES_AT_ONCE, total - first)
            data = memoryview(_read(base.db, db.fileno(), count * PAGE, first * PAGE, report))
            entries = _read(base.idx, idx.fileno(), count * ENTRY.size, ENTRIES_AT + first * ENTRY.size, report)
            for i, (lsn, summed) in enumerate(ENTRY.iter_unpack(entries)):
                if shadowed(first + i):
                    report.counts["base pages that the log replaces"] += 1
                else:
                    _check_page(base, first + i, data[i * PAGE : (i + 1) * PAGE], lsn, summed, newest, report)


def _check_page(base: Base, page: int, data: memoryview, lsn: int, summed: int, newest: int, report: Report) -> None:
    at = ENTRIES_AT + page * ENTRY.size
    if lsn > newest:
        report.problem(base.idx, at, f"LSN of page {page}", f"at most the checkpoint's {newest}", lsn)
    if lsn == 0 and summed != 0:
        report.problem(base.idx, at + 8, f"checksum of page {page}, which nobody wrote", 0, hexadecimal(summed))
    wanted = summed ^ _version_sum(page, lsn) if lsn else ZERO_SUM
    found = checksum(data)
    if found != wanted:
        what = f"checksum of page {page}, " + (f"LSN {lsn}" if lsn else "zeros that nobody wrote")
        report.problem(base.db, page * PAGE, what, hexadecimal(wanted), hexadecimal(found))


def _read(path: Path, descriptor: int, length: int, offset: int, report: Report) -> bytes:
    """Bytes of a file, zeros where it ends or cannot be read."""
    try:
        return read_at(descriptor, length, offset).ljust(length, b"\0")
    except OSError as e:
        report.problem(path, offset, f"{length} bytes", "a file that can be read", e.strerror)
        return bytes(length)
