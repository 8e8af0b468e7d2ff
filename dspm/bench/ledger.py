"""A ledger that a process of its own writes and another process kills: what was acknowledged must be found.

The writer prints a number after each commit returned; its parent takes that down, so the record of what was
acknowledged does not die with the writer. Run as a program it is the writer (`write NAME`) or the reader (`read NAME`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from dspm.errors import DspmError

BUSY_TIMEOUT_MS = 20_000
START_SECONDS = 30.0
END_SECONDS = 60.0
POLL_SECONDS = 0.001


@dataclass
class Findings:
    """What all writers together acknowledged, and what a reader found afterwards. Row numbers."""

    acknowledged: set[int] = field(default_factory=set)
    found: set[int] = field(default_factory=set)
    writers: int = 0
    integrity: str = "not checked"
    away_s: float = 0.0
    """From the kill of a writer and the primary to the next commit of another process."""

    @property
    def lost(self) -> set[int]:
        """Acknowledged, and not there."""
        return self.acknowledged - self.found

    @property
    def in_doubt(self) -> set[int]:
        """There, and not acknowledged: commits that were under way when their writers were killed."""
        return self.found - self.acknowledged

    @property
    def sound(self) -> bool:
        """Nothing is lost, at most one commit a killed writer is in doubt, and SQLite finds no damage."""
        return not self.lost and len(self.in_doubt) <= self.writers and self.integrity == "ok"


class Writer:
    """A process that commits one row after the other, until it is killed."""

    def __init__(self, name: str) -> None:
        self._process = _start("write", name)
        self._numbers: list[int] = []
        self._reader = threading.Thread(target=self._take_down, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _take_down(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith("\n"):
                return  # cut off by the kill: nobody was told
            self._numbers.append(int(line))

    def wait(self, commits: int) -> None:
        """Waits until that many commits were acknowledged."""
        deadline = time.monotonic() + START_SECONDS
        while len(self._numbers) < commits:
            if self._process.poll() is not None:
                raise DspmError(f"the writer ended by itself: {self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise DspmError(f"{len(self._numbers)} commits in {START_SECONDS:g} s, {commits} were wanted")
            time.sleep(POLL_SECONDS)

    def kill(self) -> list[int]:
        """SIGKILL; returns the rows that it acknowledged."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        return self._numbers

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        return (self._process.stderr.read().strip().splitlines() or ["it said nothing"])[-1][:200]


def read_back(name: str) -> tuple[set[int], str]:
    """Another process opens the database: the rows that it finds, and what `PRAGMA integrity_check` says."""
    reader = _start("read", name)
    try:
        out, err = reader.communicate(timeout=END_SECONDS)
    except BaseException:
        reader.kill()
        reader.communicate()
        raise
    if reader.returncode:
        raise DspmError(f"the ledger cannot be read: {(err.strip().splitlines() or ['no reason given'])[-1][:200]}")
    rows, integrity = json.loads(out)
    return set(rows), str(integrity)


def _start(role: str, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dspm.bench.ledger", role, name]
    # A session of its own: Ctrl-C is the parent's to handle, which ends its children.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _write(name: str) -> None:
    import dspm

    with dspm.connect(name) as db:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        db.execute("CREATE TABLE IF NOT EXISTS ledger(n INTEGER PRIMARY KEY, note BLOB)")
    while True:
        db.execute("BEGIN IMMEDIATE")
        number = db.execute("SELECT coalesce(max(n), -1) + 1 FROM ledger").get
        db.execute("INSERT INTO ledger VALUES(?, randomblob(200))", (number,))
        db.execute("COMMIT")
        print(number, flush=True)


def _read(name: str) -> None:
    import dspm

    db = dspm.connect(name)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    rows = [row[0] for row in db.execute("SELECT n FROM ledger")]
    print(json.dumps([rows, db.pragma("integrity_check")]))


def main(arguments: Iterable[str]) -> None:
    """The writer or the reader."""
    role, name = arguments
    {"write": _write, "read": _read}[role](name)


if __name__ == "__main__":
    main(sys.argv[1:])
