"""Flips bits in what a running node holds, in memory and on disk. Where they lie: docs/formats."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

from dspm.formats import arena, ring, slots
from dspm.formats.arena import Frame
from dspm.formats.layout import ENTRIES_AT, ENTRY, PAGE
from dspm.formats.record import Record
from dspm.formats.report import Report
from dspm.netram.client import connect_any
from dspm.netram.config import load
from dspm.netram.messages import DatasetEntry, Locate, Located

from .cluster import Cluster


def entry(cluster: Cluster, name: str) -> DatasetEntry:
    """The catalog's entry of a dataset."""
    with connect_any(load(Path(cluster.config))) as client:
        return client.ask(Locate(name), Located).entry


def frames(cluster: Cluster, node: str, dataset: int) -> dict[int, Frame]:
    """The newest version of each page that the node has in memory."""
    memory = arena.read(cluster.arena(node), Report())
    assert memory is not None
    own = (f for f in chain.from_iterable(memory.pages.values()) if f.dataset == dataset)
    return {f.page: f for f in sorted(own, key=lambda f: f.lsn)}


def base(cluster: Cluster, node: str, dataset: int) -> Path:
    """The dataset's base file there; it need not exist."""
    return cluster.directory / "nodes" / node / "base" / f"{dataset:016x}.db"


def base_pages(cluster: Cluster, node: str, dataset: int) -> list[int]:
    """Pages that the base file has."""
    path = base(cluster, node, dataset).with_suffix(".idx")
    entries = path.read_bytes()[ENTRIES_AT:] if path.exists() else b""
    whole = len(entries) // ENTRY.size * ENTRY.size
    return [i for i, (lsn, _) in enumerate(ENTRY.iter_unpack(entries[:whole])) if lsn]


def newest_record(cluster: Cluster, node: str, group: int) -> tuple[Record, int]:
    """The newest record of a group in the node's memory, and where its entry is in the arena."""
    report = Report()
    memory = arena.read(cluster.arena(node), report)
    assert memory is not None
    found = ring.read(memory, slots.read(memory, report)[group], report)
    position = max(e.position for e in found.entries if e.header.lsn == found.chain[-1].lsn)
    return found.chain[-1], found.place(position)


def flip(file: Path, at: int, bit: int = 3) -> None:
    """Turns one bit of a file around."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        byte = os.pread(descriptor, 1, at)[0]
        os.pwrite(descriptor, bytes([byte ^ 1 << bit]), at)
    finally:
        os.close(descriptor)


def flip_frame(cluster: Cluster, node: str, frame: Frame, at: int = 1000) -> None:
    """In memory."""
    flip(cluster.arena(node), frame.number * PAGE + at)


def flip_base(cluster: Cluster, node: str, dataset: int, page: int, at: int = 1000) -> None:
    """On disk."""
    flip(base(cluster, node, dataset), page * PAGE + at)


def flip_entry(cluster: Cluster, node: str, dataset: int, page: int) -> None:
    """In the sidecar: which commit the page is of."""
    flip(base(cluster, node, dataset).with_suffix(".idx"), ENTRIES_AT + page * ENTRY.size)


def tear_base(cluster: Cluster, node: str, dataset: int, page: int) -> None:
    """Of a write only the first half reached the disk."""
    with base(cluster, node, dataset).open("r+b") as file:
        file.seek(page * PAGE + PAGE // 2)
        file.write(bytes(PAGE // 2))
