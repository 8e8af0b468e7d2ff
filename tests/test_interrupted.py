"""Ctrl-C, as a terminal sends it: to the command and all that it started. What was done by then is told, with 130."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Run

from dspm.bench import native
from dspm.bench.cli import app
from dspm.bench.ycsb.disk import file_system_of
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import location, remove_files, target_named

INTERRUPTED = 130
WAIT_SECONDS = 60.0
MEMORY = Path("/dev/shm")

on_tmpfs = pytest.mark.skipif(not MEMORY.is_dir() or file_system_of(MEMORY) != "tmpfs", reason="/dev/shm is no tmpfs")


@pytest.fixture
def db() -> Iterator[str]:
    """A name for the table; its files are removed."""
    name = f"interrupted-{secrets.token_hex(4)}"
    yield name
    remove_files(_file(name))


def _file(db: str) -> str:
    return location(target_named("tmpfs"), Settings(db=db))


def _interrupt(command: list[str], true: Callable[[], bool]) -> tuple[str, str]:
    """Starts a command, interrupts it and its processes once `true()`; what it printed. Nothing of it may be left."""
    child = subprocess.Popen(
        [str(BIN), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while not true():
            assert child.poll() is None and time.monotonic() < end, child.communicate()
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=WAIT_SECONDS)
    finally:
        child.kill()
    assert child.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
    return out, err


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0


@on_tmpfs
def test_a_load_says_what_it_left_and_how_to_remove_it(db: str) -> None:
    endless = ["--target", "tmpfs", "--records", "100000000", "--batch", "100"]
    _, err = _interrupt(["ycsb", "load", "--db", db, *endless], lambda: _size(_file(db)) > 1 << 20)
    assert f"{_file(db)} is half loaded" in err and f"`rm {_file(db)}*` removes it" in err


@on_tmpfs
def test_a_run_tells_the_operations_that_it_did(db: str, dspm: Run, tmp_path: Path) -> None:
    table = ["--db", db, "--target", "tmpfs", "--records", "500", "--dir", str(tmp_path)]
    assert dspm("ycsb", "load", *table, "--batch", "100").returncode == 0
    document = tmp_path / "run.json"
    endless = ["--operations", "100000", "--rate", "1000", "--json", str(document)]
    out, err = _interrupt(["ycsb", "run", *table, *endless], lambda: _size(_file(db) + "-wal") > 1 << 16)
    found = json.loads(document.read_text())
    assert found["interrupted"] is True and found["verified"] is False
    assert 0 < found["operations_done"] < 100_000
    assert "[OVERALL], Throughput(ops/sec)" in out and "[VERIFY], Return=NOT_VERIFIED" in out
    assert f"{found['operations_done']} operations were measured" in err
    again = dspm("ycsb", "run", *table, "--operations", "100", "--json", "-")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["verified"] is True


@on_tmpfs
def test_a_comparison_tells_the_rounds_of_all_targets(db: str, tmp_path: Path) -> None:
    two = ["--target", "tmpfs", "--target", "noop", "--rounds", "1000", "--json", str(tmp_path / "c.json")]
    told = tmp_path / "err"
    small = ["--records", "100", "--operations", "100", "--dir", str(tmp_path)]
    with told.open("w") as err:
        child = subprocess.Popen([str(BIN), "ycsb", "run", "--compare", "--db", db, *two, *small], stderr=err)
        end = time.monotonic() + WAIT_SECONDS
        while "round 3 " not in told.read_text():
            assert child.poll() is None and time.monotonic() < end, told.read_text()
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        assert child.wait(WAIT_SECONDS) == INTERRUPTED, told.read_text()
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["interrupted"] is True and 2 <= found["rounds"] < 1000
    assert {len(c["throughputs"]) for c in found["compare"]} == {found["rounds"]}
    assert not list(tmp_path.glob("compare-*")) and not list(MEMORY.glob(f"dspm-ycsb-compare-*/*{db}*"))


def test_rounds_that_were_done_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measuring program ends with what it has, and says 130."""
    program = tmp_path / "stand-in"
    program.write_text('#!/bin/sh\necho \'{"mb_per_s": 1234.5, "rounds": 2}\'\nexit 130\n')
    program.chmod(0o700)
    monkeypatch.setattr(native, "program", lambda: program)
    scan = ["scan", "--json", "--rounds"]
    with pytest.raises(KeyboardInterrupt, match="2 of 7 rounds were measured"):
        app([*scan, "7"], result_action="return_value", exit_on_error=False)
    found = json.loads(capsys.readouterr().out)
    assert found["interrupted"] is True and found["mb_per_s"] == 1234.5
    program.write_text("#!/bin/sh\necho 'dspm: error: interrupted' >&2\nexit 130\n")
    with pytest.raises(KeyboardInterrupt, match="nothing was measured"):
        app([*scan, "7"], result_action="return_value", exit_on_error=False)
    assert capsys.readouterr().out == ""
