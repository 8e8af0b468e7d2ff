"""What `dspm mongo config` prints is what an engine takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import BIN

from .database import Database
from .program import SCHEMA, TABLE


def printed(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`dspm mongo config`."""
    command = [str(BIN), "mongo", "config", *arguments]
    return subprocess.run(command, env={"DSPM_CONFIG": str(config)}, capture_output=True, text=True, timeout=60)


def test_an_engine_opens_with_what_is_printed(database: Database, config: Path, tmp_path: Path) -> None:
    library = database.engine.library / "libwiredtiger.so"
    asked = ("--program", str(library), "--engine-config", "create,log=(enabled),cache_size=10MB")
    done = printed(config, f"wt/{tmp_path.name}", *asked)
    assert done.returncode == 0, done.stderr
    program = database.program()
    command, home, _ = database.words()
    program.must(command, home, done.stdout.strip())
    program.must("create", TABLE, SCHEMA)
    program.insert(1, 3)
    program.must("close")
    assert printed(config, "x", "--wiredtiger", database.engine.version).stdout.count(database.engine.entry) == 1


def test_the_program_may_run_in_another_directory(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    done = printed(Path(config.name), "x", "--wiredtiger", "11.3.1")
    assert f"config={config}" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", "/", "n" * 1025])
def test_what_is_no_name_is_refused_before_a_program_reads_it(config: Path, name: str) -> None:
    done = printed(config, name, "--wiredtiger", "11.3.1")
    assert done.returncode == 2 and done.stdout == "" and "hint: a name is 1 to 1024 bytes" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--program", "/nowhere/mongod"), "there is no /nowhere/mongod here"),
        (("--program", "/bin/sh"), "has no WiredTiger in it"),
        (("--wiredtiger", "10.0.0"), "WiredTiger 10.0.0 is not known"),
        (("--wiredtiger", "eleven"), "expected WiredTiger's version"),
        (("--wiredtiger", "11.3.1", "--engine-config", "log=(enabled"), "lacks a ')'"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_a_hint(config: Path, arguments: tuple[str, ...], said: str) -> None:
    done = printed(config, "x", *arguments)
    assert done.returncode == 2 and said in done.stderr and "\nhint: " in done.stderr, done.stderr
