"""A node's command line, and where its arena lies."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import msgspec

from dspm import _native
from dspm.errors import DspmError
from dspm.netram.config import Config

SHARED_MEMORY = Path("/dev/shm")


class Announcement(msgspec.Struct):
    """The one line that a node prints when it serves. `metrics` is host:port, `store` its store id."""

    address: str
    metrics: str
    pid: int
    store: int | str


class Node(msgspec.Struct):
    """What identifies a node and its files."""

    name: str
    machine: str
    data_dir: str
    arena_file: str


def directory_tag(directory: Path) -> str:
    """Names a directory in file names of shared memory."""
    return hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]


def arena_path(directory: Path, name: str) -> Path:
    """The arena of a node whose files are under `directory`."""
    return SHARED_MEMORY / f"dspm-{os.getuid()}-{directory_tag(directory)}-{name}.arena"


def host_machine_id() -> str:
    """What fails at once with this host: the machine id, else the host's name."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if re.fullmatch(r"[0-9a-f]{32}", text):
            return text
    return os.uname().nodename


def arguments(node: Node, config: Config, listen: str, metrics: str, insecure: bool = False) -> list[str]:
    """The command line of `dspm-node`."""
    if config.key_file is None:
        config.key()
    return [
        str(_native.node_binary()),
        *("--name", node.name),
        *("--cluster", config.cluster),
        *("--machine", node.machine),
        *("--listen", listen),
        *("--data-dir", node.data_dir),
        *("--arena", node.arena_file),
        *("--memory", str(config.memory_bytes)),
        *("--key-file", str(config.key_file)),
        *("--lease-ms", str(config.lease_ms)),
        *("--flush-interval-ms", str(config.flush_interval_ms)),
        *("--dirty-max-bytes", str(config.dirty_max_bytes)),
        *("--history-max-bytes", str(config.history_max_bytes)),
        *("--outcome-retention-ms", str(config.outcome_retention_ms)),
        *("--join-rate-bytes", str(config.join_rate_bytes)),
        *("--scrub-rate-bytes", str(config.scrub_rate_bytes)),
        *("--scrub-interval-ms", str(config.scrub_interval_ms)),
        *("--metrics", metrics),
        *(["--insecure"] if insecure else []),
    ]


def parse_announcement(line: bytes, what: str) -> Announcement:
    """The node's line, or an error that says who printed something else."""
    try:
        return msgspec.json.decode(line, type=Announcement)
    except msgspec.DecodeError:
        raise DspmError(
            f"{what} announced itself with {line[:80]!r}", "run the same version of dspm and dspm-node"
        ) from None
