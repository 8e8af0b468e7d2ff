"""A dataset of the cluster, as a Python program opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

import msgspec

from dspm import _native
from dspm.errors import UsageError
from dspm.txn.catalog import Config, config_text
from dspm.txn.reservation import Reservation
from dspm.txn.snapshot import Snapshot
from dspm.txn.transaction import WAIT_S, Transaction


class Status(msgspec.Struct, frozen=True):
    """What this process knows of a dataset, from memory. Counters are the process's, since it started."""

    mode: str
    config: str
    dataset: str
    lsn: int
    durability: str
    copies: int
    copies_now: int
    lease: Literal["none", "held", "lapsed"]
    transport: str
    round_trips: int
    cache_hits: int
    cache_misses: int


class Dataset:
    """An open dataset: a growable array of bytes in pages of 4096, numbered from 0, with a size in bytes.

    Made by :meth:`open`. It may be used by any thread; snapshots taken from it stay usable after it is closed. A
    forked child opens it again.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @classmethod
    def open(
        cls,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        readonly: bool = False,
        durability: Literal["memory", "disk"] | None = None,
        copies: int | None = None,
        min_copies: int | None = None,
        config: Config = None,
        settings: Mapping[str, str] | None = None,
    ) -> Dataset:
        """Opens a dataset.

        Args:
            name: as programs name it; the configured namespace comes before it.
            create: make it if it is missing.
            exclusive: with `create`, fail if it exists.
            readonly: no transactions.
            durability: when it is made: what a commit outlives; otherwise the cluster's value.
            copies: when it is made: nodes that hold every commit.
            min_copies: when it is made: complete members below which writes wait.
            config: path of a config file, instead of the one that is found.
            settings: keys of the configuration for this handle ("cache.size": "1MiB"). Handles of other settings
                share no cache.

        Raises:
            NotFoundError: it does not exist, and `create` is false.
            UsageError: the name, an argument or the configuration cannot be used.
            UnavailableError: no node answers, or no cluster is configured.
            DspmError: with `exclusive`, it exists.
        """
        if (exclusive and not create) or (create and readonly):
            raise UsageError("exclusive goes with create, readonly without", "see help(dspm.Dataset.open)")
        ffi, lib = _native.load()
        made = {"durability": durability, "copies": copies, "min_copies": min_copies}
        options = json.dumps({k: v for k, v in made.items() if v is not None} | {"settings": dict(settings or {})})
        flags = _native.CREATE * create | _native.EXCLUSIVE * exclusive | _native.READONLY * readonly
        out = ffi.new("dspm_dataset **")
        config_file = _native.text(config_text(config))
        _native.call("dspm_dataset_open", config_file, _native.text(name), flags, _native.text(options), out)
        return cls(ffi.gc(out[0], lib.dspm_dataset_close))

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes it; a second time is nothing. The process's last handle gives the write lease back."""
        # The library's object ends with its last reference, so never under another thread's call.
        self._handle = None

    def _open(self) -> Any:
        if self._handle is None:
            raise UsageError("the dataset is closed", "open it again")
        return self._handle

    @property
    def id(self) -> int:
        """Its id: random, never used again, kept when it is renamed."""
        _, lib = _native.load()
        return int(lib.dspm_dataset_id(self._open()))

    @property
    def name(self) -> str:
        """Its name at the time it was opened, namespace included."""
        return _native.call_for_text("dspm_dataset_name", self._open()).decode()

    @property
    def lsn(self) -> int:
        """Number of the newest commit; 0 before the first. At most one round trip.

        Raises:
            UnavailableError: no answer within `commit_timeout`.
        """
        with self.snapshot() as s:
            return s.lsn

    @property
    def size(self) -> int:
        """Bytes in the newest state. At most one round trip.

        Raises:
            UnavailableError: no answer within `commit_timeout`.
        """
        with self.snapshot() as s:
            return s.size

    def snapshot(self, *, as_of: int | str | None = None) -> Snapshot:
        """Begins a read: a state at least as new as every commit acknowledged, to anybody, before the call.

        At most one round trip, none under the write lease. Release it: old versions are kept for it.

        Args:
            as_of: a state of the past instead, as far as the dataset's `history` goes: the number of a commit, or how
                long ago ("-1500ms", "-30s", "-10m", "-2h"): the newest commit of that moment, or of one before it by at
                most a 256th of `history`. 0 and "now" are the present.

        Raises:
            TooOldError: that state is no longer kept, or which one it was is not known.
            UsageError: that commit is not there yet, or `as_of` is something else.
            UnavailableError: no answer within `commit_timeout`.
        """
        return Snapshot.begin(self._open()) if as_of is None else Snapshot.begin_as_of(self._open(), as_of)

    def transaction(self, *, base: Snapshot | int | None = None, wait: float = WAIT_S) -> Transaction:
        """A write transaction, to be used in a ``with``: it begins there, and commits where the block ends well.

        Args:
            base: a snapshot of this dataset, or its LSN, that has to be the newest state when the transaction begins.
            wait: longest wait in seconds for other transactions; waiting transactions have their turn in order.

        Raises (at the beginning of the block):
            BusyError: another transaction wrote for as long as `wait`.
            ConflictError: there were commits after `base`.
            AccessError: the dataset was opened with `readonly`.
            UnavailableError: no answer within `commit_timeout`.
        """
        return Transaction(self._open(), base.lsn if isinstance(base, Snapshot) else base, wait)

    def reservation(self) -> Reservation:
        """A write transaction in single steps, for engines; programs use :meth:`transaction`.

        Raises:
            AccessError: the dataset was opened with `readonly`.
        """
        return Reservation(self._open())

    @property
    def is_reserved(self) -> bool:
        """True while some handle of this process writes. No round trip."""
        _, lib = _native.load()
        return bool(lib.dspm_dataset_is_reserved(self._open()))

    def hold(self, keep: bool) -> None:
        """Keeps the write lease with this process, once it has it, whoever asks for it; or no longer.

        One switch a dataset and process. Others cannot write meanwhile.

        Raises:
            AccessError: the dataset was opened with `readonly`.
        """
        _native.call("dspm_dataset_hold", self._open(), int(keep))

    def status(self) -> Status:
        """What this process knows of it, without a round trip."""
        return msgspec.json.decode(self.status_json(), type=Status)

    def status_json(self) -> str:
        """The same as text."""
        return _native.call_for_text("dspm_dataset_status", self._open()).decode()
