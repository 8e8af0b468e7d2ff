"""Ledgers: processes commit one row after the other and say so; what they said must be found, and nothing else.

A row is (seq, writer, n): seq without a gap over all writers, n without a gap for each. A writer that was told of an
error looks whether the row is there and says that too, so at most the commit that was under way when a writer was
killed is in doubt.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from .child import Children, Lines, Session
from .cluster import Cluster, eventually


@dataclass
class Ledger:
    """What all writers of one database acknowledged."""

    cluster: Cluster
    children: Children
    name: str
    acknowledged: dict[int, int] = field(default_factory=dict)
    kills: int = 0
    errors: list[str] = field(default_factory=list)

    def command(self) -> tuple[object, ...]:
        """The writers' program and what it is told before the writer's number."""
        return ("ledger", self.name)

    def writer(self, number: int = 0, **env: str) -> Writer:
        """Starts a writer; one at a time may have a number."""
        return Writer(self, number, env)

    def verify(self, reader: Session | None = None) -> int:
        """Another process finds exactly the acknowledged rows, and at most one more for each killed writer."""
        reader = reader or self.children.session(self.cluster, self.name)
        rows = reader.sql("SELECT seq, writer, n FROM ledger ORDER BY seq")
        assert reader.one("PRAGMA integrity_check") == "ok"
        self.check(rows)
        return len(rows)

    def check(self, rows: list[list[int]]) -> None:
        """These rows (seq, writer, n) are the acknowledged ones, and at most one more for each killed writer."""
        assert [r[0] for r in rows] == list(range(len(rows))), "a gap in the ledger"
        found: dict[int, list[int]] = {}
        for _, writer, n in rows:
            found.setdefault(writer, []).append(n)
        extra = 0
        for writer in found.keys() | self.acknowledged.keys():
            ns, acked = found.get(writer, []), self.acknowledged.get(writer, 0)
            assert ns == list(range(len(ns))), f"writer {writer}: a gap or a repetition"
            assert len(ns) >= acked, f"LOST: writer {writer} was told of {acked} rows, {len(ns)} are there"
            extra += len(ns) - acked
        assert extra <= self.kills, f"{extra} rows that nobody was told of, after {self.kills} kills"


class Writer:
    """A process that commits to a ledger until it is ended."""

    def __init__(self, ledger: Ledger, number: int, env: dict[str, str]) -> None:
        self.ledger = ledger
        self.number = number
        self._lines = Lines()
        program, *told = ledger.command()
        self.process = ledger.children.start(
            ledger.cluster, str(program), *told, number, env=env, stdout=self._lines.fd
        )
        eventually("the ledger's writer is ready", lambda: bool(self._lines.read()) or self._ended())

    def _ended(self) -> bool:
        assert self.process.poll() is None, f"the writer ended with {self.process.returncode}: {self.last_words()}"
        return False

    def last_words(self) -> list[str]:
        """The end of its output."""
        return self._lines.read()[-3:]

    def count(self) -> int:
        """Rows that it was told of in this life."""
        return sum(line[0] in "+=" for line in self._lines.read())

    def errors(self) -> list[str]:
        """What its statements failed with: `! stage code reason`."""
        return [line for line in self._lines.read() if line[0] == "!"]

    def wait(self, more: int, seconds: float = 60.0) -> None:
        """Waits for that many more acknowledgements."""
        goal = self.count() + more
        what = f"{more} more commits of writer {self.number}"
        eventually(what, lambda: self.count() >= goal or self._ended(), seconds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it by a signal and takes down what it was told."""
        self.process.send_signal(number)
        self.process.wait(30)
        self.ledger.kills += 1
        lines = self._lines.read()
        numbers = [int(line.split()[1]) for line in lines if line[0] in "+="]
        assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a gap in its own story"
        doubt = ""
        for line in lines:
            if line.startswith("! COMMIT"):
                doubt = line
            assert line[0] != "=" or "outcome" in doubt, f"COMMIT failed for certain, and the row is there: {doubt}"
            doubt = doubt if line[0] == "!" else ""
        told = self.ledger.acknowledged.get(self.number, 0)
        self.ledger.acknowledged[self.number] = max([told, *(n + 1 for n in numbers)])
        self.ledger.errors += self.errors()
