"""The 64-byte header that stands before every record and entry (docs/formats/wire.md)."""

from __future__ import annotations

from typing import NamedTuple

from dspm.formats.files import Bytes, expect, low_half
from dspm.formats.layout import DATA_MAX, HEADER, HEADER_MAGIC, META_MAX, VERSION
from dspm.formats.report import Malformed

SIZE = HEADER.size


class Header(NamedTuple):
    """A checked header. `request` is a position in a ring, a batch number in the log; `store` is the salt there."""

    kind: int
    flags: int
    meta_len: int
    data_len: int
    request: int
    group: int
    generation: int
    lsn: int
    store: int
    meta_sum: int


def parse(data: Bytes, at: int) -> Header:
    """The header at `at`, if it is one."""
    raw = data[at : at + SIZE]
    if len(raw) < SIZE:
        raise Malformed("header", f"{SIZE} bytes", f"{len(raw)} until the end")
    magic, version, *fields, own, meta = HEADER.unpack(raw)
    header = Header._make([*fields, meta])
    if magic != HEADER_MAGIC or version != VERSION:
        raise Malformed("header", f"magic DSPM, version {VERSION}", f"{bytes(raw[:5]).hex(' ')}")
    expect("checksum of the header", low_half(raw[:56]), own, 56)
    if header.meta_len > META_MAX or header.data_len > DATA_MAX:
        found = f"{header.meta_len} and {header.data_len}"
        raise Malformed("lengths in the header", f"at most {META_MAX} and {DATA_MAX}", found, 8)
    return header


def metadata(data: Bytes, at: int, header: Header) -> bytes:
    """The metadata behind the header at `at`, checked."""
    meta = bytes(data[at + SIZE : at + SIZE + header.meta_len])
    if len(meta) < header.meta_len:
        raise Malformed("metadata", f"{header.meta_len} bytes", f"{len(meta)} until the end", SIZE)
    expect("checksum of the metadata", header.meta_sum, low_half(meta), SIZE)
    return meta


def padded(length: int) -> int:
    """Rounded up to a multiple of 8."""
    return length + 7 & ~7
