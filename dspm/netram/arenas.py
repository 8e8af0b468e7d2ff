"""Arenas in shared memory that nobody owns any more.

A cluster's arenas outlive its processes: they are its memory. When its directory was deleted, nobody can ever use
them again, and they would fill the machine's memory until it reboots. So each directory leaves a note beside its
arenas (`dspm-UID-TAG.dir`: its path and device), and `up` and `down` remove arenas whose directory is gone. A
directory on a file system that is not mounted now is not gone: the device of what is there instead differs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from dspm.errors import DspmError
from dspm.netram import netns
from dspm.netram.node import SHARED_MEMORY, directory_tag
from dspm.netram.process import Process, end_all


class Note(msgspec.Struct):
    """Whose arenas these are."""

    directory: str
    device: int
    processes: list[Process] = []
    network: netns.Network | None = None


def leave_note(directory: Path, processes: list[Process], network: netns.Network | None = None) -> None:
    """Says whose arenas lie under this directory's tag, and which processes use them."""
    path = _note_path(directory)
    note = Note(str(directory.resolve()), directory.stat().st_dev, processes, network)
    temporary = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:
            f.write(msgspec.json.encode(note))
        os.replace(temporary, path)


def remove_orphans() -> None:
    """Removes arenas of directories that were deleted."""
    for path in SHARED_MEMORY.glob(f"dspm-{os.getuid()}-*.dir"):
        note = _read(path)
        if note and _is_deleted(note) and not any(p.is_running for p in note.processes):
            _remove(path, note.network)


def clear(directory: Path) -> None:
    """Makes room for a new cluster where one was deleted: ends what is left of it and removes its arenas."""
    path = _note_path(directory)
    note = _read(path)
    if note is not None:
        end_all(note.processes)
    _remove(path, note.network if note else None)


def begin_anew(data_dir: Path, arena: Path) -> None:
    """Removes a node's memory when its directory was lost: who begins in that directory is another node.

    `arena` is the file that belongs to that directory, so it is nobody else's. A node that uses it still keeps it.
    """
    identity = data_dir / "node"
    if identity.exists() and identity.stat().st_size > 0:
        return
    with contextlib.suppress(OSError), open(arena, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        arena.unlink()


def _note_path(directory: Path) -> Path:
    return SHARED_MEMORY / f"dspm-{os.getuid()}-{directory_tag(directory)}.dir"


def _read(path: Path) -> Note | None:
    """The note, if it is one and ours: others can write to shared memory too."""
    try:
        if path.lstat().st_uid != os.getuid():
            return None
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None


def _remove(note: Path, network: netns.Network | None) -> None:
    if network is not None:
        with contextlib.suppress(DspmError):
            netns.remove(network)
    for path in [*SHARED_MEMORY.glob(f"{note.stem}-*.arena"), note]:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_deleted(note: Note) -> bool:
    directory = Path(note.directory)
    if (directory / "state.json").exists():
        return False
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        return directory.stat().st_dev == note.device
    except OSError:
        return False
