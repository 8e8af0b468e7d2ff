"""A real cluster for the tests of one module: three node processes, two copies, memory only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BIN


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Path of the config file of a running cluster."""
    from dspm.netram import arenas

    directory = tmp_path_factory.mktemp("cluster") / "c"
    env = {k: v for k, v in os.environ.items() if not k.startswith("DSPM_")}
    command = [str(BIN), "up", "--dir", str(directory), "--memory", "128MiB", "--json"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        yield Path(json.loads(done.stdout)["config"])
    finally:
        subprocess.run([str(BIN), "down", "--dir", str(directory)], env=env, timeout=60)
        arenas.clear(directory)


@pytest.fixture
def cluster(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster of this module is the one that the test means."""
    monkeypatch.setenv("DSPM_CONFIG", str(config))
    return config
