"""Clusters for the system tests, and bounds for everything.

`SYSTEM_SLOW=1` runs the long variants too (or `-m slow`), `SYSTEM_ROUNDS=n` sets the number of rounds of those tests
that count, `SYSTEM_SECONDS=n` the length of those that run for a time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from .child import Children
from .cluster import Cluster

TEST_SECONDS = 150

Clusters = Callable[..., Cluster]
_running: list[Cluster] = []


def _slow(config: pytest.Config) -> bool:
    return os.environ.get("SYSTEM_SLOW", "") not in ("", "0") or "slow" in (config.option.markexpr or "")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: a long variant; SYSTEM_SLOW=1 or -m slow runs it")
    config.addinivalue_line("markers", "seconds(n): the test is ended after that long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _slow(config):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="a long variant: SYSTEM_SLOW=1 or -m slow runs it"))


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails. The bound is far above what any of them needs."""
    marker = request.node.get_closest_marker("seconds")
    seconds = int(marker.args[0]) if marker else TEST_SECONDS

    def ring(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"the test did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def children() -> Iterator[Children]:
    """Starts processes that end with the test; clusters that it harmed are mended."""
    all_of_them = Children()
    yield all_of_them
    all_of_them.end()
    for cluster in _running:
        cluster.mend()


def _maker(factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    made: list[Cluster] = []

    def make(nodes: int = 3, **settings: Any) -> Cluster:
        options = {k.replace("__", "."): str(v) for k, v in settings.items()}
        cluster = Cluster(factory.mktemp("cluster") / "c", nodes, options)
        made.append(cluster)
        cluster.up()
        _running.append(cluster)
        return cluster

    yield make
    for cluster in made:
        if cluster in _running:
            _running.remove(cluster)
        cluster.end()


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Makes clusters that end with the module."""
    yield from _maker(tmp_path_factory)


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    yield from _maker(tmp_path_factory)


@pytest.fixture(scope="session")
def cluster(_shared: Clusters) -> Cluster:
    """Three nodes that no test harms: only the processes that use them are."""
    return _shared(3, memory="256MiB")


def rounds(ci: int) -> int:
    """How often: as given, or what SYSTEM_ROUNDS says."""
    return int(os.environ.get("SYSTEM_ROUNDS", ci))


def seconds(ci: float) -> float:
    """How long: as given, or what SYSTEM_SECONDS says."""
    return float(os.environ.get("SYSTEM_SECONDS", ci))
