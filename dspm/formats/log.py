"""The disk log: segments, and batches in their order (docs/formats/disk-log.md).

A batch counts as a whole or not at all. Where none counts any more, either a batch behind it had been synced, and the
log is damaged, or this is the torn tail of a crash, which recovery cuts off. Memory: one segment at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dspm.formats import header as headers
from dspm.formats import record as records
from dspm.formats.files import checksum, expect, hexadecimal, read_at
from dspm.formats.header import SIZE, Header
from dspm.formats.layout import (
    BATCH_END,
    HEADER_MAGIC,
    PAGE,
    PAIR,
    REMOVED,
    SEGMENT,
    SEGMENT_MAGIC,
    VERSION,
    WORD,
    Kind,
    Payload,
)
from dspm.formats.record import Record
from dspm.formats.report import Malformed, Report

FIRST_BATCH = PAGE
_NAME = re.compile(r"[0-9]+\.seg")
_MARK = HEADER_MAGIC + bytes([VERSION])


class Segment(NamedTuple):
    """A file of the log that was in use."""

    path: Path
    id: int
    salt: int
    size: int


class Checkpoint(NamedTuple):
    """The base files hold everything up to this record."""

    group: int
    generation: int
    lsn: int
    hash: int
    sizes: dict[int, int]


class Cut(NamedTuple):
    """The group's records above this LSN are void."""

    group: int
    lsn: int


class Rebase(NamedTuple):
    """All of the group that stands before is void: its history begins behind this record, and its base is to come."""

    group: int
    generation: int
    lsn: int
    hash: int


class Removed(NamedTuple):
    """The group is no more."""

    group: int


class Entry(NamedTuple):
    """An entry of a batch; `at` is its place in the segment, `end` where the next one begins."""

    at: int
    end: int
    header: Header
    said: Record | Checkpoint | Cut | Rebase | Removed


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that counts. `end` is where its BatchEnd ends."""

    segment: Segment
    number: int
    at: int
    end: int
    oldest: int
    entries: list[Entry]


@dataclass(slots=True)
class Log:
    """A reader of the log. What it found out of the whole is known when `batches` has ended."""

    directory: Path
    run: list[Segment] = field(default_factory=list)
    damaged: bool = False
    torn: tuple[Path, int] | None = None
    last: Batch | None = None

    def batches(self, report: Report) -> Iterator[Batch]:
        """All batches that count, in order; says what is wrong with the rest."""
        self.run = _run(self.directory, self, report)
        expected: int | None = None
        for segment in self.run:
            data = self._load(segment, report)
            for batch in self._segment(segment, data, expected, report):
                expected = batch.number + 1
                self.last = batch
                yield batch
            if self.damaged:
                break
        self._check_oldest(report)
        if self.torn:
            path, at = self.torn
            report.note(path, at, f"torn tail: batch {expected or 1} is not whole; recovery cuts it off")

    def _load(self, segment: Segment, report: Report) -> bytes:
        try:
            with open(segment.path, "rb") as f:
                return read_at(f.fileno(), segment.size, 0)
        except OSError as e:
            self.damaged = True
            report.problem(segment.path, None, "segment", "a file that can be read", e.strerror)
            return b""

    def _segment(self, segment: Segment, data: bytes, expected: int | None, report: Report) -> Iterator[Batch]:
        at = FIRST_BATCH
        while at < len(data):
            try:
                batch = parse_batch(segment, data, at, expected)
            except Malformed as bad:
                self._stop(segment, data, at, expected, bad, report)
                return
            # What a torn tail was is only known with the batch that was written again.
            self.torn = None
            report.counts["log batches"] += 1
            yield batch
            expected = batch.number + 1
            at = -(-batch.end // PAGE) * PAGE

    def _stop(
        self, segment: Segment, data: bytes, at: int, expected: int | None, bad: Malformed, report: Report
    ) -> None:
        """No batch counts at `at`: the end, a torn tail, or damage."""
        expected = 1 if expected is None else expected
        numbers = sorted(_numbers(data, at, segment.salt))
        later = next((n for n in numbers if n[0] > expected), None)
        if later is not None:
            self.damaged = True
            if self.torn:
                # It is no torn tail of the segment before: this one begins with what came behind it.
                path, place = self.torn
                what = f"whole, since batch {later[0]} in {segment.path.name} was synced"
                report.problem(path, place, f"batch {expected}", what, "damaged")
                self.torn = None
                return
            what = f"batch {expected}, though batch {later[0]} at byte {later[1]} was synced"
            report.malformed(segment.path, at, bad, what)
        elif numbers and numbers[-1][0] == expected:
            self.torn = (segment.path, at + bad.at)

    def _check_oldest(self, report: Report) -> None:
        if self.last is not None and self.last.oldest not in {s.id for s in self.run}:
            wanted = f"segment {self.last.oldest}, which batch {self.last.number} needs"
            found = f"segments {self.run[0].id} to {self.run[-1].id}"
            report.problem(self.directory, None, "segments of the log", wanted, found)
            self.damaged = True


def _run(directory: Path, log: Log, report: Report) -> list[Segment]:
    """The longest run of segments without a gap up to the highest id."""
    found: dict[int, Segment] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if not _NAME.fullmatch(path.name):
            continue
        report.counts["log segments"] += 1
        try:
            segment = _segment_header(path)
        except Malformed as bad:
            log.damaged = True
            report.malformed(path, 0, bad)
            continue
        if segment is None:
            continue
        if segment.id in found:
            log.damaged = True
            report.problem(path, 16, "segment id", f"{segment.id} in {found[segment.id].path.name} only", "here too")
        found[segment.id] = segment
    run: list[Segment] = []
    number = max(found, default=0)
    while number in found:
        run.insert(0, found[number])
        number -= 1
    return run


def _segment_header(path: Path) -> Segment | None:
    """The segment of a file; None if it is unused."""
    with open(path, "rb") as f:
        raw = read_at(f.fileno(), SEGMENT.size, 0)
        length = os.fstat(f.fileno()).st_size
    if not any(raw):
        return None
    if len(raw) < SEGMENT.size:
        raise Malformed("header of a segment", f"{SEGMENT.size} bytes", len(raw))
    magic, version, _, number, salt, size, summed = SEGMENT.unpack(raw)
    if magic != SEGMENT_MAGIC or version != VERSION:
        raise Malformed("header of a segment", f"magic DSPMLOG1, version {VERSION}", raw[:12].hex(" "))
    expect("checksum of a segment's header", checksum(raw[:-8]), summed, SEGMENT.size - 8)
    if size != length or number == 0:
        raise Malformed("size and id of a segment", f"{length} and 1 or more", f"{size} and {number}", 16)
    return Segment(path, number, salt, size)


def parse_batch(segment: Segment, data: bytes, at: int, expected: int | None) -> Batch:
    """The batch at `at`, checked in all its parts; places in errors count from `at`."""
    place = at
    number = expected
    entries: list[Entry] = []
    while True:
        try:
            header = headers.parse(data, place)
            number = header.request if number is None else number
            _check_place(header, number, segment.salt)
            meta = headers.metadata(data, place, header)
            if header.kind == Kind.BATCH_END:
                oldest = _check_end(meta, len(entries), memoryview(data)[at:place])
                return Batch(segment, number, at, place + SIZE + len(meta), oldest, entries)
            entry = _parse_entry(data, place, header, meta)
        except Malformed as bad:
            raise Malformed(bad.what, bad.expected, bad.found, place - at + bad.at) from None
        entries.append(entry)
        place = entry.end


def _check_place(header: Header, number: int, salt: int) -> None:
    if header.store != salt:
        raise Malformed("salt", hexadecimal(salt), hexadecimal(header.store), 48)
    if header.request != number:
        raise Malformed("batch number", number, header.request, 16)


def _check_end(meta: bytes, count: int, entries: memoryview) -> int:
    """The oldest segment that a BatchEnd names, if it fits the entries."""
    if len(meta) != BATCH_END.size:
        raise Malformed("metadata of a BatchEnd", f"{BATCH_END.size} bytes", len(meta), 8)
    fields: tuple[int, int, int, int] = BATCH_END.unpack(meta)
    number, length, oldest, summed = fields
    if (number, length) != (count, len(entries)):
        raise Malformed("entries of a batch", f"{count} of {len(entries)} bytes", f"{number} of {length}", SIZE)
    expect("checksum of the entries", checksum(entries), summed, SIZE + 24)
    return oldest


def _parse_entry(data: bytes, at: int, header: Header, meta: bytes) -> Entry:
    end = at + SIZE + headers.padded(len(meta))
    if header.kind == Kind.COMMIT and header.flags == 0:
        record = records.parse(header, meta)
        return Entry(at, _check_images(data, at, end, record), header, record)
    if header.kind == Kind.COMPLETE and header.flags in (0, REMOVED) and not meta:
        return Entry(at, end, header, Removed(header.group) if header.flags else Cut(header.group, header.lsn))
    if header.kind == Kind.REBASE and header.flags == 0 and len(meta) == WORD.size:
        hash_ = WORD.unpack(meta)[0]
        return Entry(at, end, header, Rebase(header.group, header.generation, header.lsn, hash_))
    if header.kind == Kind.CHECKPOINT and header.flags == 0 and len(meta) % PAIR.size == WORD.size:
        sizes = dict(PAIR.iter_unpack(meta[WORD.size :]))
        hash_ = WORD.unpack_from(meta)[0]
        return Entry(at, end, header, Checkpoint(header.group, header.generation, header.lsn, hash_, sizes))
    found = f"kind {header.kind}, flags {header.flags:#x}, {len(meta)} bytes"
    raise Malformed("entry", "a record, a cut, a rebase, a removal, a checkpoint or the end of the batch", found, 4)


def _check_images(data: bytes, at: int, place: int, record: Record) -> int:
    """Checks the images behind a record that begins at `at`, and says where they end."""
    view = memoryview(data)
    for page in record.pages():
        if page.payload == Payload.ZERO:
            continue
        image = view[place : place + PAGE]
        if len(image) < PAGE:
            raise Malformed(f"image of page {page.number}", f"{PAGE} bytes", f"{len(image)} until the end", place - at)
        expect(f"checksum of the image of page {page.number}", page.checksum, checksum(image), place - at)
        place += PAGE
    return place


def _numbers(data: bytes, start: int, salt: int) -> Iterator[tuple[int, int]]:
    """Number and place of each valid header with this salt, at or behind `start`."""
    at = data.find(_MARK, start)
    while at >= 0:
        if at % 8 == 0:
            try:
                header = headers.parse(data, at)
            except Malformed:
                pass
            else:
                if header.store == salt:
                    yield header.request, at
        at = data.find(_MARK, at + 1)
