"""WiredTiger's own crash tests, unmodified, with the cluster as their file system.

Each writes with several threads and notes in files of its own what it wrote, is killed by its parent, opens the
database again and compares. They are told of dspm by the environment alone.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from .database import Database
from .engines import CRASHES
from .program import extensions


@pytest.mark.parametrize("name", CRASHES)
def test_crash_program(database: Database, name: str, tmp_path: Path) -> None:
    program = database.engine.programs / f"test_{name}"
    if not program.exists():
        pytest.skip(f"WiredTiger {database.engine.version} is here without {program.name}")
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": str(database.engine.library),
        "WIREDTIGER_CONFIG": extensions(database.library, database.engine.entry, database.options),
    }
    # -p: the home is kept; -t: seconds until the kill; -T: threads.
    command = [str(program), "-p", "-t", "4", "-T", "5"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    verified = re.search(r"(\d+) records verified", done.stdout)
    assert verified and int(verified[1]) > 100, done.stdout[-2000:]
    assert not [*tmp_path.rglob("*.wt"), *tmp_path.rglob("WiredTigerLog*")], "the database is in the cluster"
