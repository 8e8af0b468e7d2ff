"""What a check found: problems, notes and counts. A problem says where, what was expected and what is there.

A problem is damage, or two parts that contradict each other. A note is what a crash may leave and recovery puts right.
Problems beyond a limit are counted and not kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PROBLEMS_MAX = 1000


class Malformed(Exception):
    """Bytes that are not what the format says. `at` counts from where the reader was told that its thing begins."""

    def __init__(self, what: str, expected: object, found: object, at: int = 0) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found
        self.at = at


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem or note. `offset` is in bytes of the file, None when it is about the file as a whole."""

    file: str
    offset: int | None
    what: str
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        where = self.file if self.offset is None else f"{self.file}: byte {self.offset}"
        rest = f": expected {self.expected}, found {self.found}" if self.expected or self.found else ""
        return f"{where}: {self.what}{rest}"


@dataclass
class Report:
    """What was found in the files of one node."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0

    @property
    def sound(self) -> bool:
        """True when nothing is damaged and nothing contradicts anything else."""
        return not self.problems

    def problem(self, file: Path, offset: int | None, what: str, expected: object, found: object) -> None:
        """Something is damaged."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Finding(str(file), offset, what, str(expected), str(found)))
        else:
            self.unlisted += 1

    def malformed(self, file: Path, offset: int, bad: Malformed, what: str = "") -> None:
        """What was read at `offset` is damaged; `what` says what it was to be."""
        text = f"{what}: {bad.what}" if what else bad.what
        self.problem(file, offset + bad.at, text, bad.expected, bad.found)

    def note(self, file: Path, offset: int | None, what: str) -> None:
        """Something worth knowing that is no damage."""
        if len(self.notes) < PROBLEMS_MAX:
            self.notes.append(Finding(str(file), offset, what))
