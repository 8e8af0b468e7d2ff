"""A database path of the cluster, as the tests' programs open it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dspm import _native

from .engines import Engine
from .program import SCHEMA, TABLE, Program, configuration


@dataclass
class Database:
    """A database path of the cluster, and how programs open it."""

    engine: Engine
    driver: Path
    options: str
    directory: Path
    programs: list[Program] = field(default_factory=list)

    @property
    def library(self) -> Path:
        """libdspm.so."""
        return _native.library_path()

    def program(self) -> Program:
        """A new process, nothing open."""
        errors = self.directory / f"errors-{len(self.programs)}"
        self.programs.append(Program.start(self.driver, errors))
        return self.programs[-1]

    def words(self, *, entry: str = "", options: str | None = None, **more: str) -> tuple[str, str, str]:
        """The command that opens it. Each process has an empty home of its own: nothing is kept there."""
        home = self.directory / f"home-{len(self.programs)}"
        home.mkdir(exist_ok=True)
        chosen = self.options if options is None else options
        return "open", str(home), configuration(self.library, entry or self.engine.entry, chosen, **more)

    def open(self, **more: str) -> Program:
        """A new process with the database open."""
        program = self.program()
        program.must(*self.words(**more))
        return program

    def created(self, **more: str) -> Program:
        """As open, with the table."""
        program = self.open(**more)
        program.must("create", TABLE, SCHEMA)
        return program
