"""Flips bits in what a running node holds, in memory and on disk. Where they lie: docs/formats."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from dspm.netram.client import connect_any
from dspm.netram.config import load
from dspm.netram.messages import DatasetEntry, Locate, Located

from .cluster import Cluster

PAGE = 4096
_ENTRY = struct.Struct("<QQQQQQIIII")
_SIDECAR = struct.Struct("<QQ")
_PAGE_STATE = int.from_bytes(b"PAGE", "little")


class Frame(NamedTuple):
    """A version of a page in a node's memory."""

    number: int
    page: int
    lsn: int


def entry(cluster: Cluster, name: str) -> DatasetEntry:
    """The catalog's entry of a dataset."""
    with connect_any(load(Path(cluster.config))) as client:
        return client.ask(Locate(name), Located).entry


def frames(cluster: Cluster, node: str, dataset: int) -> dict[int, Frame]:
    """The newest version of each page that the node has in memory."""
    found: dict[int, Frame] = {}
    with cluster.arena(node).open("rb") as f:
        header = f.read(256)
        copies = [header[at : at + 128] for at in (0, 128) if header[at : at + 8] == b"DSPMAREN"]
        first, count = struct.unpack_from("<II", max(copies, key=lambda c: int.from_bytes(c[16:24], "little")), 32)
        f.seek(PAGE)
        table = f.read(count * _ENTRY.size)
    for i, e in enumerate(_ENTRY.iter_unpack(table)):
        if e[8] == _PAGE_STATE and e[1] == dataset:
            frame = Frame(first + i, e[2], e[4])
            found[frame.page] = max(frame, found.get(frame.page, frame), key=lambda x: x.lsn)
    return found


def base(cluster: Cluster, node: str, dataset: int) -> Path:
    """The dataset's base file there; it need not exist."""
    return cluster.directory / "nodes" / node / "base" / f"{dataset:016x}.db"


def base_pages(cluster: Cluster, node: str, dataset: int) -> list[int]:
    """Pages that the base file has."""
    path = base(cluster, node, dataset).with_suffix(".idx")
    entries = path.read_bytes()[PAGE:] if path.exists() else b""
    whole = len(entries) // _SIDECAR.size * _SIDECAR.size
    return [i for i, (lsn, _) in enumerate(_SIDECAR.iter_unpack(entries[:whole])) if lsn]


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
