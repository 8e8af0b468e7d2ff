"""What the history says while it grows: when each database last acknowledged a write."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from dspm.bench.torture.history import OK, TRANSFER, TXN, Event


class Progress:
    """Reads what was added since the last look."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._rest = b""
        self._asked: dict[str, int] = {}
        self._decoder = msgspec.json.Decoder(Event)
        self.acknowledged: dict[str, int] = {}
        """For each database, the latest time at which a write was asked that has been acknowledged since."""
        self.count = 0

    def look(self) -> None:
        """Takes in what is new."""
        while new := os.read(self._fd, 1 << 20):
            lines = (self._rest + new).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                if b'"operation":"transfer"' in line or b'"operation":"txn"' in line:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            e = self._decoder.decode(line)
        except msgspec.DecodeError:
            return  # a stump
        if e.type != OK:
            self._asked[e.process] = e.time
        elif e.operation == TRANSFER or (e.operation == TXN and any(s[0] == "append" for s in e.value)):
            self.count += 1
            asked = self._asked.get(e.process, 0)
            self.acknowledged[e.database] = max(asked, self.acknowledged.get(e.database, 0))

    def all_since(self, moment: int, databases: list[str]) -> bool:
        """True when each database acknowledged a write that was asked after that moment."""
        self.look()
        return all(self.acknowledged.get(d, 0) > moment for d in databases)

    def close(self) -> None:
        """Ends it."""
        os.close(self._fd)
