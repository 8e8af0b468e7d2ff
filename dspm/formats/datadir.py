"""A node's data directory: identity, lock, catalog, and where the arena lies (docs/formats/arena.md, catalog.md).

Invariant: nothing of a node is read while the node runs. A shared lock on `lock`, and on the arena, is held
meanwhile, so that none starts either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dspm.errors import AccessError, DataError, UnavailableError, UsageError
from dspm.formats.files import checksum, expect
from dspm.formats.layout import IDENTITY, IDENTITY_MAGIC, VERSION
from dspm.formats.report import Malformed, Report

CATALOG_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Identity:
    """What `node` says: the store id, the boot number, and whether a write or sync of the log failed."""

    store: int
    boot: int
    suspect: bool


@dataclass(frozen=True, slots=True)
class DataDir:
    """The names in a data directory."""

    path: Path

    @property
    def identity(self) -> Path:
        """The identity file."""
        return self.path / "node"

    @property
    def lock(self) -> Path:
        """Locked by the node that runs."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """The segments of the disk log."""
        return self.path / "log"

    @property
    def base(self) -> Path:
        """Base files and sidecars."""
        return self.path / "base"

    @property
    def catalog(self) -> Path:
        """What the registry told last."""
        return self.path / "catalog.json"


def of(path: Path) -> DataDir:
    """The data directory at this path, if it is one."""
    hint = "give a node's data directory, such as D/nodes/n1 of `dspm up --dir D`"
    directory = DataDir(path.absolute())
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", hint)
    if not directory.identity.exists():
        raise UsageError(f"{path} is not a node's data directory: it has no file `node`", hint)
    return directory


@contextlib.contextmanager
def stopped(directory: DataDir, arena: Path | None) -> Iterator[None]:
    """Holds the locks of a node that does not run; an error if it runs."""
    with contextlib.ExitStack() as held:
        for path in (directory.lock, arena):
            if path is not None and path.exists():
                held.enter_context(_locked(path, directory))
        yield


@contextlib.contextmanager
def _locked(path: Path, directory: DataDir) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise AccessError(f"{path} cannot be opened: {e.strerror}", "run as the user of the node") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "stop it first (`dspm down --dir D`); a running node verifies what it serves by itself"
            raise UnavailableError(f"{directory.path} is in use: a node holds the lock of {path}", hint) from None
        yield
    finally:
        os.close(descriptor)


def read_identity(directory: DataDir, report: Report) -> Identity | None:
    """What the identity file says; None when it is damaged."""
    path = directory.identity
    raw = path.read_bytes()
    try:
        return _identity(raw)
    except Malformed as bad:
        report.malformed(path, 0, bad)
        return None


def _identity(raw: bytes) -> Identity:
    if len(raw) != IDENTITY.size:
        raise Malformed("identity file", f"{IDENTITY.size} bytes", len(raw))
    magic, version, boot, store, suspect, _, _, summed = IDENTITY.unpack(raw)
    if magic != IDENTITY_MAGIC or version != VERSION:
        raise Malformed("identity file", f"magic DSPMNODE, version {VERSION}", raw[:12].hex(" "))
    expect("checksum of the identity file", checksum(raw[:-8]), summed, IDENTITY.size - 8)
    if suspect > 1:
        raise Malformed("mark of a failed log", "0 or 1", suspect, 24)
    return Identity(store, boot, bool(suspect))


class Member(msgspec.Struct):
    """A member of a replica set."""

    node: str
    store: int


class ReplicaSet(msgspec.Struct):
    """A replica set, as far as it is checked here."""

    id: int
    generation: int
    members: list[Member]
    joining: list[Member] = []


class View(msgspec.Struct):
    """Nodes and sets as the registry told them."""

    version: int
    cluster: str
    nodes: list[dict[str, Any]]
    sets: list[ReplicaSet]


class Entry(msgspec.Struct):
    """A dataset of the catalog."""

    name: str
    dataset: int
    group: int
    set: int
    durability: str
    copies: int
    min_copies: int
    history_ms: int = 0


class Catalog(msgspec.Struct):
    """The file `catalog.json`."""

    view: View
    datasets: list[Entry]


def read_catalog(directory: DataDir, report: Report) -> Catalog | None:
    """The catalog; None when there is none, or it is damaged."""
    path = directory.catalog
    try:
        raw = path.read_bytes() if path.stat().st_size <= CATALOG_MAX else b""
    except FileNotFoundError:
        return None
    try:
        catalog = msgspec.json.decode(raw, type=Catalog)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        report.problem(path, None, "catalog", "JSON of a view and datasets", e)
        return None
    _check_catalog(catalog, path, report)
    return catalog


def _check_catalog(catalog: Catalog, path: Path, report: Report) -> None:
    names: set[str] = set()
    for entry in catalog.datasets:
        if entry.name in names:
            report.problem(path, None, f"dataset {entry.name!r}", "each name once", "another of them")
        names.add(entry.name)
    report.counts["catalog datasets"] = len(catalog.datasets)


def find_arena(directory: DataDir, given: Path | None) -> Path | None:
    """The arena of this node: as given, as `dspm up` noted, or where `dspm node` puts it; None when it is gone."""
    from dspm.netram.layout import Layout
    from dspm.netram.node import SHARED_MEMORY, directory_tag

    if given is not None:
        if not given.is_file():
            raise UsageError(f"there is no arena {given}", "give the file that `dspm up --json` calls arena_file")
        return given
    with contextlib.suppress(DataError):
        state = Layout(directory.path.parent.parent).read_state()
        for node in state.nodes if state else []:
            if Path(node.data_dir).resolve() == directory.path.resolve():
                return Path(node.arena_file) if Path(node.arena_file).exists() else None
    found = sorted(SHARED_MEMORY.glob(f"dspm-{os.getuid()}-{directory_tag(directory.path)}-*.arena"))
    return found[0] if len(found) == 1 else None
