"""The log in lines, for people and as JSON.

A line is a dictionary of plain values; its first key, `line`, says what it is: batch, record, cut, rebase, removed,
checkpoint.
In JSON ids and hashes are numbers; in text they are hexadecimal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspm.formats.files import hexadecimal
from dspm.formats.layout import Part, Payload
from dspm.formats.log import Batch, Checkpoint, Cut, Entry, Log, Rebase, Removed
from dspm.formats.record import Link, Page, Record
from dspm.formats.report import Report

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the log is wanted. Batches are shown when everything is, or something of them is."""

    group: int | None = None
    first: int = 0
    pages: bool = False

    def wants(self, entry: Entry) -> bool:
        """True when the entry is to be shown."""
        if self.group is not None and entry.said.group != self.group:
            return False
        return isinstance(entry.said, Removed) or entry.said.lsn >= self.first

    @property
    def wants_all(self) -> bool:
        """True when nothing is left out."""
        return self.group is None and self.first == 0


def lines(log: Log, wanted: Filter, report: Report) -> Iterator[Line]:
    """The log's lines, in its order."""
    for batch in log.batches(report):
        entries = [e for e in batch.entries if wanted.wants(e)]
        if entries or wanted.wants_all:
            yield _batch(batch)
        for entry in entries:
            yield _entry(entry, wanted.pages)


def _batch(batch: Batch) -> Line:
    return {
        "line": "batch",
        "number": batch.number,
        "file": batch.segment.path.name,
        "segment": batch.segment.id,
        "offset": batch.at,
        "bytes": batch.end - batch.at,
        "entries": len(batch.entries),
        "oldest_segment": batch.oldest,
    }


def _entry(entry: Entry, pages: bool) -> Line:
    said = entry.said
    place = {"offset": entry.at, "group": said.group}
    if isinstance(said, Record):
        return {"line": "record", **place, **_record(said, pages)}
    if isinstance(said, Cut):
        return {"line": "cut", **place, "lsn": said.lsn}
    if isinstance(said, Rebase):
        return {"line": "rebase", **place, "generation": said.generation, "lsn": said.lsn, "hash": said.hash}
    if isinstance(said, Removed):
        return {"line": "removed", **place}
    return {"line": "checkpoint", **place, **_checkpoint(said)}


def _checkpoint(said: Checkpoint) -> Line:
    sizes = [{"dataset": dataset, "size": size} for dataset, size in said.sizes.items()]
    return {"generation": said.generation, "lsn": said.lsn, "hash": said.hash, "datasets": sizes}


def _record(record: Record, pages: bool) -> Line:
    kinds = Counter(Payload(p.payload).name.lower() for p in record.pages())
    line: Line = {
        "generation": record.generation,
        "lsn": record.lsn,
        "token": ".".join(map(str, record.token)),
        "client": record.client,
        "session": record.session,
        "transaction": record.transaction,
        "floor": record.floor,
        "hash": record.hash,
        "predecessor": record.predecessor,
        "part": record.part.name.lower(),
        "links": [_link(link) for link in record.links],
        "sent_bytes": record.data_len,
        "datasets": [{"dataset": d.id, "size": d.size} for d in record.datasets],
        "page_kinds": {kind.name.lower(): kinds[kind.name.lower()] for kind in Payload},
    }
    if pages:
        line["pages"] = [_page(record, page) for page in record.pages()]
    return line


def _link(link: Link) -> Line:
    return {"group": link.group, "lsn": link.lsn, "hash": link.hash, "token": ".".join(map(str, link.token))}


def _page(record: Record, page: Page) -> Line:
    return {
        "dataset": record.datasets[page.dataset].id,
        "page": page.number,
        "kind": Payload(page.payload).name.lower(),
        "bytes": page.length,
        "base": page.base,
        "checksum": page.checksum,
    }


_IDS = frozenset({"group", "client", "hash", "predecessor", "dataset", "checksum"})


def text(line: Line) -> str:
    """A line for people: what it is, then names and values."""
    shown = [line["line"]] if line["line"] == "batch" else ["  " + line["line"]]
    for name, value in line.items():
        if name == "datasets":
            shown += [f"dataset {hexadecimal(d['dataset'])} of {d['size']} bytes" for d in value]
        elif name == "links":
            shown += [f"of group {hexadecimal(x['group'])} commit {x['lsn']} under {x['token']}" for x in value]
        elif name == "part":
            shown += [value] if value != Part.ALONE.name.lower() else []
        elif name == "page_kinds":
            shown += [f"{kind} {count}" for kind, count in value.items()]
        elif name == "pages":
            shown += [_page_text(page) for page in value]
        elif name != "line":
            shown.append(f"{name} {hexadecimal(value) if name in _IDS else value}")
    return ", ".join(shown)


def _page_text(page: Line) -> str:
    how = f" {page['bytes']} bytes on LSN {page['base']}" if page["kind"] == "delta" else ""
    return f"page {page['page']} of {hexadecimal(page['dataset'])} {page['kind']}{how}"
