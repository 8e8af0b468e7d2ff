"""The record: one commit, as ring and log keep it (docs/formats/record.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dspm.formats.files import checksum, expect, pages_of
from dspm.formats.header import SIZE, Header
from dspm.formats.layout import (
    DATASETS_MAX,
    HASH_FIELD,
    HASH_HEAD,
    HASH_PAGE,
    PAGE,
    RECORD,
    RECORD_DATASET,
    RECORD_PAGE,
    Payload,
)
from dspm.formats.report import Malformed


class Dataset(NamedTuple):
    """A dataset of a record and its size in bytes after the commit."""

    id: int
    size: int


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
    datasets: tuple[Dataset, ...]
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


def parse(header: Header, meta: bytes) -> Record:
    """The record with this header and metadata; places in errors count from the header."""
    if len(meta) < RECORD.size:
        raise Malformed("metadata of a record", f"at least {RECORD.size} bytes", len(meta), 8)
    front = RECORD.unpack_from(meta)
    generation, boot, n, client, session, transaction, predecessor, floor, hash_, _, _, _, d, p = front
    pages_at = RECORD.size + RECORD_DATASET.size * d
    if d > DATASETS_MAX:
        raise Malformed("datasets of a record", f"at most {DATASETS_MAX}", d, SIZE + 80)
    if len(meta) != pages_at + RECORD_PAGE.size * p:
        raise Malformed("metadata of a record", f"{pages_at + RECORD_PAGE.size * p} bytes", len(meta), 8)
    if header.lsn == 0:
        raise Malformed("LSN of a record", "1 or more", 0, 40)
    datasets = tuple(Dataset(i, size) for i, size, _, _ in RECORD_DATASET.iter_unpack(meta[RECORD.size : pages_at]))
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
        datasets=datasets,
        page_count=p,
        data_len=header.data_len,
        raw_pages=meta[pages_at:],
    )
    _check_pages(record, SIZE + pages_at)
    expect("hash of the record", _hash(record, meta[:pages_at]), hash_, SIZE + HASH_FIELD.start)
    return record


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
