"""Fixtures: each engine in turn, and a database of its own in the cluster of the module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wt_engines
import wt_program
from wt_engines import Engine
from wt_program import Program

from dspm import _native


@pytest.fixture(scope="module", params=list(wt_engines.ENTRIES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that is here."""
    try:
        return wt_engines.find(request.param)
    except wt_engines.Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def driver(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver for it."""
    return wt_program.compiled(engine, tmp_path_factory.mktemp("driver"))


@dataclass
class Database:
    """A database path of the cluster, and how programs open it."""

    engine: Engine
    driver: Path
    options: str
    directory: Path
    programs: list[Program] = field(default_factory=list)

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
        library = _native.library_path()
        return "open", str(home), wt_program.configuration(library, entry or self.engine.entry, chosen, **more)

    def open(self, **more: str) -> Program:
        """A new process with the database open."""
        program = self.program()
        program.must(*self.words(**more))
        return program

    def created(self, **more: str) -> Program:
        """As open, with the table."""
        program = self.open(**more)
        program.must("create", wt_program.TABLE, wt_program.SCHEMA)
        return program


@pytest.fixture
def database(engine: Engine, driver: Path, config: Path, tmp_path: Path) -> Iterator[Database]:
    """A database that was never opened."""
    made = Database(engine, driver, f"dataset=wt/{tmp_path.name},config={config}", tmp_path)
    yield made
    for program in made.programs:
        program.end()
