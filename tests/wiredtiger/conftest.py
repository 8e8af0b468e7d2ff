"""Fixtures: each engine in turn, and a database of its own in the cluster of the module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import config  # noqa: F401  (a fixture)

from . import engines, program
from .database import Database
from .engines import Engine


@pytest.fixture(scope="module", params=list(engines.ENTRIES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that is here."""
    try:
        return engines.find(request.param)
    except engines.Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def driver(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver for it."""
    return program.compiled(engine, tmp_path_factory.mktemp("driver"))


@pytest.fixture
def database(
    engine: Engine,
    driver: Path,
    config: Path,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Database]:
    """A database that was never opened."""
    made = Database(engine, driver, f"dataset=wt/{tmp_path.name},config={config}", tmp_path)
    yield made
    for running in made.programs:
        running.end()
