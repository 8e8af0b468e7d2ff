"""The configuration as Python sees it. It is parsed by crates/config alone; here it only gets its types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dspm import _native
from dspm.errors import UnavailableError, UsageError
from dspm.netram.key import Key

_SHOW_HINT = "`dspm config show` lists the keys with their values and meaning"
EMPTY = Path("/dev/null")
"""A config file that says nothing."""

_START_HINT = "`dspm up --dir D` starts a cluster on this machine; set DSPM_CONFIG to the config that it prints"


class Setting(msgspec.Struct, frozen=True):
    """One key as it was decided. `origin` is "default", {"file": line}, {"variable": name} or "argument"."""

    key: str
    value: str
    origin: str | dict[str, str | int]
    scope: str
    meaning: str

    @property
    def is_default(self) -> bool:
        """True when nobody set it."""
        return self.origin == "default"


class Config(msgspec.Struct, frozen=True):
    """The configuration. Times in milliseconds, sizes in bytes."""

    path: str | None
    cluster: str
    nodes: list[str]
    registry: str
    key_file: str | None
    namespace: str
    durability: str
    copies: int
    min_copies: int
    commit_timeout_ms: int
    flush_interval_ms: int
    dirty_max_bytes: int
    join_rate_bytes: int
    history_ms: int
    history_max_bytes: int
    memory_bytes: int
    cache_size_bytes: int
    cache_prefetch: bool
    lease_ms: int
    lease_reads: bool
    failover: bool
    suspect_after_ms: int
    outcome_retention_ms: int
    scrub_rate_bytes: int
    scrub_interval_ms: int
    settings: list[Setting]

    def setting(self, key: str) -> Setting:
        """The setting of that key."""
        return next(s for s in self.settings if s.key == key)

    def key(self) -> Key:
        """The cluster's key, without surrounding white space.

        Raises:
            UsageError: no key file is configured, or it cannot be read.
        """
        if self.key_file is None:
            raise UsageError("no key_file is configured: it names the file that holds the cluster's key", _SHOW_HINT)
        return read_key(Path(self.key_file))


_OTHERS = 0o007
"""What nobody but owner and group may do with a key file."""


def read_key(path: Path) -> Key:
    """The key in that file."""
    hint = "`key_file` in the config names the file that holds the cluster's key"
    try:
        mode = path.stat().st_mode & 0o777
        if mode & _OTHERS:
            raise UsageError(
                f"the key file {path} is open to everybody on this machine (mode {mode:03o})",
                f"`chmod 600 {path}`; whoever has the key can read and change all data",
            )
        key = path.read_bytes().strip()
    except OSError as e:
        raise UsageError(f"the key file {path} cannot be read: {e.strerror}", hint) from None
    if not key:
        raise UsageError(f"the key file {path} is empty", hint)
    return Key(key, path)


def load(path: Path | None = None, overrides: Mapping[str, str] | None = None) -> Config:
    """Reads the configuration: `path` or the file that is found, then DSPM_* variables, then `overrides`.

    Raises:
        UsageError: something that was said cannot be used.
        UnavailableError: nothing says which cluster is meant.
    """
    try:
        raw = _native.config_json(None if path is None else str(path), overrides or {})
    except UsageError as e:
        e.hint = e.hint or (_START_HINT if _names_no_file(path) else _SHOW_HINT)
        raise
    except UnavailableError as e:
        e.hint = _START_HINT
        raise
    return msgspec.json.decode(raw, type=Config)


def _names_no_file(path: Path | None) -> bool:
    """True when the file that somebody named is not there: then there are no keys to look at."""
    named = path or os.environ.get("DSPM_CONFIG")
    return bool(named) and not Path(str(named)).exists()


def load_defaults() -> Config:
    """What holds where no file is found: the defaults, and what DSPM_* variables say."""
    return msgspec.structs.replace(load(EMPTY), path=None)


def load_file(path: Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Reads that file alone: daemons of one cluster must agree whatever the environment of their starter says."""
    kept = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("DSPM_") and k not in _NOT_KEYS}
    try:
        return load(path, overrides)
    finally:
        os.environ.update(kept)


_NOT_KEYS = frozenset({"DSPM_CONFIG", "DSPM_LOG", "DSPM_MONGOD"})


def load_cluster() -> Config:
    """As :func:`load`, of a cluster that has nodes to ask."""
    config = load()
    if not config.nodes:
        raise UnavailableError(f"no cluster is configured ({config.path} names no nodes)", _START_HINT)
    return config
