"""Records of transactions over several groups, as the readers in Python see them: the example, and damage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dspm.formats.header import Header
from dspm.formats.layout import Part
from dspm.formats.record import Link, Record, parse, taken_back
from dspm.formats.report import Malformed

DOCUMENT = Path(__file__).parent.parent / "docs/formats/record.md"
LINKS_AT, PART_AT, LINK_AT = 72, 76, 112


def example() -> bytearray:
    """The metadata of the last example in the document."""
    block = DOCUMENT.read_text().split("```")[-2]
    return bytearray.fromhex(" ".join(re.findall(r"(?<=\s)[0-9a-f]{2}(?=\s)", block)))


def read(meta: bytes) -> Record:
    header = Header(9, 0, len(meta), 0, request=0, group=3, generation=1, lsn=2, store=0, meta_sum=0)
    return parse(header, meta)


def test_the_documents_prepared_record() -> None:
    record = read(bytes(example()))
    assert record.part == Part.PREPARED
    assert record.links == (Link(9, 5, 0x1122334455667788, (1, 2, 4)),)
    assert [(p.number, p.payload) for p in record.pages()] == [(2, 2)]
    assert record.hash == 0x286512A7985558D1
    assert taken_back([record]) == set()


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (PART_AT, 0, "links of a record"),
        (PART_AT, 3, "links of a record"),
        (PART_AT, 2, "a link"),  # whose hash would have to be 0
        (PART_AT, 4, "part of a record"),
        (LINKS_AT, 129, "links of a record"),
        (LINKS_AT, 0, "metadata of a record"),
        (LINK_AT, 3, "group of a link"),  # its own
        (LINK_AT + 8, 0, "a link"),
        (LINK_AT + 16, 0, "hash of the record"),
    ],
)
def test_what_does_not_fit_is_named(at: int, value: int, what: str) -> None:
    meta = example()
    meta[at] = value
    with pytest.raises(Malformed) as bad:
        read(bytes(meta))
    assert bad.value.what == what
