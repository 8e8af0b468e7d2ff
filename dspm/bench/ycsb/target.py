"""Where the measured database lives, and how it is opened there."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from dspm.bench.ycsb.disk import file_system_of
from dspm.bench.ycsb.settings import Settings
from dspm.errors import UnavailableError, UsageError

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
NOOP = "noop"
WIREDTIGER = "wiredtiger"
SIDE_FILES = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Target:
    """A place and a mode. `copies` is how many stores hold a commit when it is acknowledged."""

    name: str
    title: str
    durability: str
    copies: int
    journal_mode: str = ""
    in_memory: bool = False
    reports_itself: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the database is an ordinary file of this machine."""
        return bool(self.journal_mode)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("dspm", "dspm", "as the data set says", 0, reports_itself=True),
        Target("wal", "disk, WAL FULL", "local disk, synced at every commit", 1, "wal"),
        Target("delete", "disk, DELETE FULL", "local disk, synced at every commit", 1, "delete"),
        Target("tmpfs", "tmpfs, WAL", "none: memory of this host only", 1, "wal", in_memory=True),
        Target(NOOP, "no-op", "none: nothing is kept", 0),
    )
}

WIREDTIGER_TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        TARGETS["dspm"],
        Target("disk", "disk, log fsync", "local disk, synced at every commit", 1, "log"),
        Target("tmpfs", "tmpfs, log fsync", "none: memory of this host only", 1, "log", in_memory=True),
        TARGETS[NOOP],
    )
}

COMPARED = ("dspm", "wal", "delete", "tmpfs")
"""The targets of a comparison; the first is what the others are compared with."""


def compared(binding: str) -> tuple[str, ...]:
    """The same for any binding."""
    return ("dspm", "disk", "tmpfs") if binding == WIREDTIGER else COMPARED


def target_named(name: str, binding: str = "sqlite") -> Target:
    """The target `name` of a binding."""
    targets = WIREDTIGER_TARGETS if binding == WIREDTIGER else TARGETS
    found = targets.get(name)
    if found is None:
        raise UsageError(f"there is no target {name!r} for {binding}", f"the targets are {', '.join(targets)}")
    return found


def location(target: Target, settings: Settings) -> str:
    """What to open: the name of the data set, or the path of the file or of WiredTiger's directory."""
    if not target.is_file:
        return f"{settings.db}.wt" if settings.binding == WIREDTIGER else settings.db
    directory = settings.memory_directory if target.in_memory else settings.directory
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", settings.db)
    return str(directory / f"dspm-ycsb-{stem}-{target.name}.{settings.binding}")


def prepare_directory(target: Target, settings: Settings) -> None:
    """Makes the directory of a file target and checks that it is on the kind of store that the target stands for."""
    if not target.is_file:
        return
    directory = settings.memory_directory if target.in_memory else settings.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}", "give another --dir") from error
    kind = file_system_of(directory)
    if (kind in MEMORY_FILE_SYSTEMS) == target.in_memory:
        return
    if target.in_memory:
        raise UnavailableError(f"{directory} is on {kind}, so it cannot serve as tmpfs", "leave tmpfs out of --target")
    raise UsageError(f"{directory} is on {kind}, so target {target.name} would measure no disk", "give another --dir")


def remove_files(path: str) -> None:
    """Removes a database file and what SQLite keeps beside it, or WiredTiger's directory."""
    if Path(path).is_dir():
        shutil.rmtree(path)
        return
    for suffix in SIDE_FILES:
        Path(path + suffix).unlink(missing_ok=True)
