"""The record: one commit, as ring and log keep it (docs/formats/record.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dspm.formats.files import checksum, expect, hexadecimal, pages_of
from dspm.formats.header import SIZE, Header
from dspm.formats.layout import (
    DATASETS_MAX,
    HASH_FIELD,
    HASH_HEAD,
    HASH_PAGE,
    LINKS_MAX,
    PAGE,
    RECORD,
    RECORD_DATASET,
    RECORD_LINK,
    RECORD_PAGE,
    Part,
    Payload,
)
from dspm.formats.report import Malformed


class Dataset(NamedTuple):
    """A dataset of a record and its size in bytes after the commit."""

    id: int
    size: int


class Link(NamedTuple):
    """A record of another group; `hash` is 0 where that record names this one."""

    group: int
    lsn: int
    hash: int
    token: tuple[int, int, int]


class Page(NamedTuple):
    """A page of a record. `base` is the LSN that a delta applies to, `length` what travelled."""

    number: int
    checksum: int
    base: int
    length: int
    dataset: int
    payload: int


@dataclass(frozen=True, slots=True)
class Record:
    """A checked record. Its pages are unpacked when asked for: a record can name many."""

    group: int
    generation: int
    lsn: int
    token: tuple[int, int, int]
    client: int
    session: int
    transaction: int
    predecessor: int
    floor: int
    hash: int
    part: Part
    datasets: tuple[Dataset, ...]
    links: tuple[Link, ...]
    page_count: int
    data_len: int
    raw_pages: bytes

    def pages(self) -> Iterator[Page]:
        """The pages in the order of the list."""
        for number, summed, base, length, dataset, payload, _ in RECORD_PAGE.iter_unpack(self.raw_pages):
            yield Page(number, summed, base, length, dataset, payload)

    @property
    def images(self) -> int:
        """How many pages are not zeros: the log holds an image of each."""
        return sum(p.payload != Payload.ZERO for p in self.pages())


def taken_back(chain: Iterable[Record]) -> set[int]:
    """The LSNs of prepared records whose pages and sizes do not count, for the record behind them aborts."""
    return {record.lsn - 1 for record in chain if record.part == Part.ABORTS}


def parse(header: Header, meta: bytes) -> Record:
    """The record with this header and metadata; places in errors count from the header."""
    if len(meta) < RECORD.size:
        raise Malformed("metadata of a record", f"at least {RECORD.size} bytes", len(meta), 8)
    front = RECORD.unpack_from(meta)
    generation, boot, n, client, session, transaction, predecessor, floor, hash_, _, links, part, d, p = front
    links_at = RECORD.size + RECORD_DATASET.size * d
    pages_at = links_at + RECORD_LINK.size * links
    if d > DATASETS_MAX:
        raise Malformed("datasets of a record", f"at most {DATASETS_MAX}", d, SIZE + 80)
    if links > LINKS_MAX:
        raise Malformed("links of a record", f"at most {LINKS_MAX}", links, SIZE + 72)
    if part not in list(Part):
        raise Malformed("part of a record", "0 to 3", part, SIZE + 76)
    if len(meta) != pages_at + RECORD_PAGE.size * p:
        raise Malformed("metadata of a record", f"{pages_at + RECORD_PAGE.size * p} bytes", len(meta), 8)
    if header.lsn == 0:
        raise Malformed("LSN of a record", "1 or more", 0, 40)
    datasets = tuple(Dataset(i, size) for i, size, _, _ in RECORD_DATASET.iter_unpack(meta[RECORD.size : links_at]))
    named = RECORD_LINK.iter_unpack(meta[links_at:pages_at])
    record = Record(
        group=header.group,
        generation=header.generation,
        lsn=header.lsn,
        token=(generation, boot, n),
        client=client,
        session=session,
        transaction=transaction,
        predecessor=predecessor,
        floor=floor,
        hash=hash_,
        part=Part(part),
        datasets=datasets,
        links=tuple(Link(group, lsn, summed, (g, b, c)) for group, lsn, summed, g, b, c in named),
        page_count=p,
        data_len=header.data_len,
        raw_pages=meta[pages_at:],
    )
    _check_links(record, SIZE + links_at)
    _check_pages(record, SIZE + pages_at)
    expect("hash of the record", _hash(record, meta[:pages_at]), hash_, SIZE + HASH_FIELD.start)
    return record


def _check_links(record: Record, at: int) -> None:
    most = {Part.ALONE: 0, Part.PREPARED: 1, Part.DECIDES: LINKS_MAX, Part.ABORTS: 0}[record.part]
    if not min(most, 1) <= len(record.links) <= most:
        raise Malformed("links of a record", f"{min(most, 1)} to {most}", len(record.links), SIZE + 72)
    if record.part == Part.ABORTS and (record.datasets or record.page_count):
        raise Malformed("a record that aborts", "no datasets and no pages", len(record.datasets), SIZE + 80)
    groups = {record.group}
    for i, link in enumerate(record.links):
        where = at + i * RECORD_LINK.size
        if link.group in groups:
            raise Malformed("group of a link", "another one than before", hexadecimal(link.group), where)
        groups.add(link.group)
        if link.lsn == 0 or (record.part == Part.DECIDES and link.hash):
            wanted = "an LSN of 1 or more, and no hash in a deciding record"
            raise Malformed("a link", wanted, f"LSN {link.lsn}, hash {hexadecimal(link.hash)}", where + 8)


def _check_pages(record: Record, at: int) -> None:
    named: set[tuple[int, int]] = set()
    total, last = 0, 0
    for i, page in enumerate(record.pages()):
        where = at + i * RECORD_PAGE.size
        _check_page(record, page, last, where)
        if (page.dataset, page.number) in named:
            raise Malformed("pages of a record", "each page once", f"page {page.number} twice", where)
        named.add((page.dataset, page.number))
        total, last = total + page.length, page.payload
    if total != record.data_len:
        raise Malformed("bytes of page data", f"{total} by the list of pages", record.data_len, 12)


def _check_page(record: Record, page: Page, last: int, where: int) -> None:
    if page.payload not in (Payload.FULL, Payload.DELTA, Payload.ZERO) or page.payload < last:
        raise Malformed("payload of a page", "0, 1 or 2 in rising order", f"{page.payload} behind {last}", where + 30)
    if page.dataset >= len(record.datasets):
        raise Malformed("dataset of a page", f"an index below {len(record.datasets)}", page.dataset, where + 28)
    if page.payload == Payload.ZERO:
        fits, wanted = page.length == 0 and page.checksum == 0, "no bytes and no checksum"
    elif page.payload == Payload.DELTA:
        fits, wanted = page.length <= PAGE and page.base < record.lsn, f"at most {PAGE} bytes, base below the LSN"
    else:
        fits, wanted = page.length == PAGE, f"{PAGE} bytes"
    if not fits:
        raise Malformed("a page of a record", wanted, f"{page.length} bytes, base {page.base}", where + 8)
    pages = pages_of(record.datasets[page.dataset].size)
    if page.payload != Payload.ZERO and page.number >= pages:
        raise Malformed("number of a page", f"below {pages}, the dataset's pages", page.number, where)


def _hash(record: Record, front: bytes) -> int:
    """The hash by its definition; `front` is the metadata up to the pages."""
    parts = [
        HASH_HEAD.pack(record.group, record.generation, record.lsn),
        front[: HASH_FIELD.start],
        bytes(8),
        front[HASH_FIELD.stop :],
    ]
    parts += [HASH_PAGE.pack(p.number, p.checksum, p.dataset, p.payload == Payload.ZERO) for p in record.pages()]
    return checksum(b"".join(parts))
