"""The directory of a cluster that `dspm up` made: its files, its state, its lock.

    D/dspm.toml      the config, for clients and daemons      D/cluster.key    the key, mode 0600
    D/state.json     what runs and where (State)              D/lock           held by `up` and `down`
    D/log/           stderr of the daemons                    D/run/           their first line of stdout
    D/registry/      the registry's state                     D/nodes/NAME/    a node's log and base files

Invariants: state.json is replaced whole, never edited; what it says of a process holds only while its start time
agrees (`dspm.netram.process.Process`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dspm.errors import AccessError, DataError, DspmError
from dspm.netram.netns import Network
from dspm.netram.process import NONE, Process


class NodeState(msgspec.Struct):
    """A node of the cluster; the address is empty until it served once."""

    name: str
    machine: str
    data_dir: str
    arena_file: str
    address: str = ""
    metrics: str = ""
    process: Process = NONE


class RegistryState(msgspec.Struct):
    """The registry; the address is empty until it served once."""

    address: str = ""
    url: str = ""
    process: Process = NONE


class State(msgspec.Struct):
    """What `up` made."""

    nodes: list[NodeState]
    registry: RegistryState
    format: int = 1
    complete: bool = False
    network: Network | None = None

    def processes(self) -> list[Process]:
        """All that were started last."""
        return [n.process for n in self.nodes] + [self.registry.process]


class Layout:
    """Names of the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.config = self.directory / "dspm.toml"
        self.key = self.directory / "cluster.key"
        self.state = self.directory / "state.json"
        self.lock = self.directory / "lock"
        self.log = self.directory / "log"
        self.run = self.directory / "run"
        self.registry = self.directory / "registry"
        self.nodes = self.directory / "nodes"

    def read_state(self) -> State | None:
        """The state, None if there is no cluster here."""
        try:
            raw = self.state.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise AccessError(f"{self.state} cannot be read: {e.strerror}") from None
        try:
            return msgspec.json.decode(raw, type=State)
        except msgspec.DecodeError as e:
            raise DataError(f"{self.state} is damaged: {e}", "move the directory aside") from None

    def write_state(self, state: State) -> None:
        """Replaces the state."""
        write_whole(self.state, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")

    def directories(self) -> tuple[Path, ...]:
        """The directories under D."""
        return self.log, self.run, self.registry, self.nodes

    def made(self) -> tuple[Path, ...]:
        """What `up` makes in D, and takes away when it fails, but for state and lock."""
        return self.config, self.key, *self.directories()

    def make_directories(self) -> None:
        """Makes the directories under D."""
        for path in self.directories():
            path.mkdir(mode=0o700, exist_ok=True)

    def make_key(self) -> None:
        """Makes the cluster's key, if there is none."""
        if not self.key.exists():
            write_whole(self.key, secrets.token_hex(32).encode() + b"\n")

    @contextlib.contextmanager
    def locked(self, create: bool) -> Iterator[bool]:
        """Holds the lock; says whether the directory was made for it."""
        made = create and _make(self.directory)
        while True:
            try:
                lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as e:
                raise _cannot(self.directory, e) from None
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if os.fstat(lock).st_nlink == 0:  # removed by another `up` that failed
                    made = create and _make(self.directory)
                    continue
                yield made
                return
            finally:
                os.close(lock)


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file, on disk before it takes the name; only its owner may read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DspmError(f"{path} cannot be written: {e.strerror}", "check room and permissions") from None


def _make(directory: Path) -> bool:
    """Makes the directory; False if it was there."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise AccessError(f"{directory} is not a directory", "choose another --dir") from None
        return False
    except OSError as e:
        raise _cannot(directory, e) from None
    return True


def _cannot(directory: Path, e: OSError) -> DspmError:
    return AccessError(f"the directory {directory} cannot be used: {e.strerror}", "choose another --dir")
