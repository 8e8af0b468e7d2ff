"""The history: one line of JSON for each thing that was asked, answered, or done to the cluster.

Invariants: a line is written by one `write` to a file opened with O_APPEND, before the operation is sent and after it
returned, so it outlives whoever wrote it. Each line begins with a line end: SIGKILL may cut a `write` short where it
crosses a page of memory, and what follows must not be joined to the stump. A stump counts as not said: an operation
that was asked so was never sent, one that was answered so has an unknown outcome. Times are CLOCK_MONOTONIC in ns,
which all processes and namespaces of a machine share.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from dspm.errors import DataError

INVOKE: Literal["invoke"] = "invoke"
OK: Literal["ok"] = "ok"
FAIL: Literal["fail"] = "fail"
INFO: Literal["info"] = "info"

SETUP, TRANSFER, READ, TXN, SCAN, FINAL = "setup", "transfer", "read", "txn", "scan", "final"
BEGIN, END = "begin", "end"
NEMESIS = "nemesis"
"""The process that does harm: its operations are `begin` and `end` of a fault."""


class Event(msgspec.Struct, omit_defaults=True):
    """`invoke`: asked. `ok`: it happened. `fail`: it did not, for certain. `info`: nobody knows, or a fault."""

    process: str
    type: Literal["invoke", "ok", "fail", "info"]
    operation: str
    value: Any
    time: int
    database: str = ""
    error: str = ""


@dataclass(slots=True)
class Operation:
    """An invocation and its completion. Without one, because the process died, its outcome is unknown."""

    invoked: Event
    done: Event | None = None

    @property
    def outcome(self) -> str:
        """`ok`, `fail` or `info`."""
        return self.done.type if self.done is not None else INFO

    @property
    def start(self) -> int:
        """When it was asked."""
        return self.invoked.time

    @property
    def end(self) -> int | None:
        """When it was acknowledged; None if it was not."""
        return self.done.time if self.done is not None and self.done.type == OK else None

    @property
    def value(self) -> Any:
        """What is known of it: with its results where it was acknowledged."""
        return self.done.value if self.done is not None and self.done.type == OK else self.invoked.value

    def __str__(self) -> str:
        done = self.done
        until = f"..{done.time}" if done else ".."
        return f"{self.invoked.process} {self.invoked.operation} {self.outcome} {self.start}{until}"


class Recorder:
    """Writes the events of one process."""

    def __init__(self, path: Path, process: str) -> None:
        self._process = process
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def note(
        self,
        type: Literal["invoke", "ok", "fail", "info"],
        operation: str,
        value: Any,
        database: str = "",
        error: str = "",
    ) -> None:
        """Writes one event, now."""
        event = Event(self._process, type, operation, value, time.monotonic_ns(), database, error)
        line = b"\n" + msgspec.json.encode(event) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError("the history's file system is full")

    def close(self) -> None:
        """Ends it."""
        os.close(self._fd)


@dataclass
class Final:
    """All rows, as one process found them when all was over."""

    process: str
    tables: dict[str, list[list[Any]]] = field(default_factory=dict)
    integrity: str = ""


@dataclass
class History:
    """A whole history, by time."""

    events: list[Event] = field(default_factory=list)
    stumps: int = 0

    def operations(self, database: str) -> list[Operation]:
        """All operations on a database, in the order in which they were asked."""
        found: list[Operation] = []
        open_by: dict[str, Operation] = {}
        for e in self.events:
            if e.database != database or e.process == NEMESIS or e.operation == FINAL:
                continue
            if e.type == INVOKE:
                open_by[e.process] = Operation(e)
                found.append(open_by[e.process])
            elif (begun := open_by.pop(e.process, None)) is not None:
                begun.done = e
        return found

    def finals(self, database: str) -> list[Final]:
        """What each process that read all of it found; only those that came to the end."""
        found: dict[str, Final] = {}
        for e in self.events:
            if e.database == database and e.operation == FINAL:
                final = found.setdefault(e.process, Final(e.process))
                if e.type == INFO:
                    final.tables.setdefault(e.value["table"], []).extend(e.value["rows"])
                elif e.type == OK:
                    final.integrity = e.value["integrity"]
        return [f for f in found.values() if f.integrity]

    def setups(self) -> dict[str, dict[str, Any]]:
        """What each database was made with."""
        return {e.database: e.value for e in self.events if e.operation == SETUP and e.type == OK}


def parse(lines: list[bytes]) -> History:
    """Events of lines; those cut short are counted."""
    history = History()
    decoder = msgspec.json.Decoder(Event)
    for line in lines:
        if not line:
            continue
        try:
            history.events.append(decoder.decode(line))
        except msgspec.DecodeError:
            history.stumps += 1
    history.events.sort(key=lambda e: e.time)
    return history


def read(path: Path) -> History:
    """The history in a file.

    Raises:
        DataError: it holds none.
    """
    try:
        history = parse(path.read_bytes().split(b"\n"))
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}", "name a file that a torture run wrote") from None
    if not history.events:
        raise DataError(f"{path} holds no events: a history has one JSON object a line", "see docs/torture.md")
    return history
