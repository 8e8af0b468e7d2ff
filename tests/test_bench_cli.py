"""`dspm bench`: what it prints, how it takes the measuring program's errors, and its cluster left as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, Run

from dspm.bench import native, redis
from dspm.bench.cli import app
from dspm.errors import DspmError, UnavailableError, UsageError

TURNS = {"floor_us": 10.0, "floor_us_min": 9.0, "floor_us_max": 12.0, "p50_us": 12.5, "ratio": 1.25, "rounds": 3}


def bench(*words: str) -> None:
    app(list(words), result_action="return_value", exit_on_error=False)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for dspm-bench; a test writes what it does."""
    path = tmp_path / "stand-in"

    def stand_in() -> Path:
        path.chmod(0o700)
        return path

    monkeypatch.setattr(native, "program", stand_in)
    return path


def answers(program: Path, document: dict[str, Any]) -> None:
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\n")


@pytest.mark.parametrize("command", ["page", "commit"])
def test_latencies_come_with_floor_ratio_and_the_disks_mood(
    program: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    answers(program, {**TURNS, "members": 2, "durability": "memory"})
    bench(command, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["floor_us"], found["p50_us"], found["ratio"]) == (10.0, 12.5, 1.25)
    assert found["fdatasync_us"] > 0
    bench(command)
    table = capsys.readouterr().out
    assert "12.50" in table and "9.00" in table and "× floor" in table and "fdatasync" in table


def test_scan_reads_as_many_pages_as_the_size_has(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.write_text('#!/bin/sh\necho "{\\"mb_per_s\\": 1234.5, \\"rounds\\": 1, \\"asked\\": \\"$*\\"}"\n')
    bench("scan", "--mebibytes", "2", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["mb_per_s"] == 1234.5
    assert found["asked"] == "scan --rounds 5 --pages 512"


def test_without_redis_our_own_figure_stands_alone(
    program: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(program, {"ops_per_s": 1000.0})
    monkeypatch.setattr(redis, "is_installed", lambda: False)
    bench("node", "--rounds", "2", "--json")
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["ops_per_s"] == 1000.0
    assert found["redis_ops_per_s"] is None and found["ratio"] is None
    assert "redis-server" in said.err and "install" in said.err
    bench("node", "--rounds", "2")
    assert "dspm-node" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("page", "--rounds", "0"), UsageError),
        (("scan", "--mebibytes", "0"), UsageError),
        (("node", "--milliseconds", "-1"), UsageError),
    ],
)
def test_numbers_out_of_bounds_are_refused(words: tuple[str, ...], kind: type[DspmError]) -> None:
    with pytest.raises(kind, match=words[1]):
        bench(*words)


def test_the_programs_errors_become_ours(program: Path) -> None:
    program.write_text("#!/bin/sh\necho 'dspm: error: no node answers' >&2\necho 'hint: start one' >&2\nexit 3\n")
    with pytest.raises(UnavailableError, match="no node answers") as caught:
        native.measure("page")
    assert caught.value.hint == "start one"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(DspmError, match="signal 9"):
        native.measure("page")
    program.write_text("#!/bin/sh\necho what >&2\nexit 7\n")
    with pytest.raises(DspmError, match="status 7") as caught_other:
        native.measure("page")
    assert caught_other.value.hint == "what"


def test_its_warnings_are_passed_on(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.write_text("#!/bin/sh\necho 'dspm: warning: left' >&2\necho '{}'\n")
    assert native.measure("page") == {}
    assert capsys.readouterr().err == "dspm: warning: left\n"


def test_an_incomplete_installation_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dspm._native.node_binary", lambda: tmp_path / "dspm-node")
    with pytest.raises(DspmError, match="dspm-bench is missing"):
        native.program()


@pytest.mark.skipif(not redis.is_installed(), reason="redis-server is not installed")
def test_redis_serves_while_it_is_wanted_and_is_ended() -> None:
    with redis.running(keys=16) as server:
        port = server._port
        assert server.gets_per_s(200, connections=4) > 0
    assert redis._serves(subprocess.Popen(["true"]), port) is False


def test_redis_commands_are_binary_safe() -> None:
    assert redis._command(b"SET", b"k", b"\r\n") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n"


def test_a_real_cluster_is_measured_and_left_as_it_was(dspm: Run, directory: Path) -> None:
    up = dspm("up", "--dir", directory, "--nodes", "2", "--memory", "64MiB", "--json")
    assert up.returncode == 0, up.stderr
    env = {"DSPM_CONFIG": json.loads(up.stdout)["config"]}
    tiny = {
        "page": ("--rounds", 2, "--samples", 20),
        "commit": ("--rounds", 2, "--samples", 20),
        "scan": ("--rounds", 1, "--mebibytes", 2),
        "node": ("--rounds", 1, "--milliseconds", 50, "--pages", 64),
        "update": ("--rounds", 2, "--samples", 20),
        "sustained": ("--seconds", 2, "--intervals", 2),
    }
    keys = {
        "page": {"floor_us", "p50_us", "ratio", "fdatasync_us"},
        "commit": {"floor_us", "p50_us", "ratio", "fdatasync_us"},
        "scan": {"mb_per_s"},
        "node": {"ops_per_s", "redis_ops_per_s", "ratio"},
        "update": {"floor_us", "tmpfs_us", "p50_us", "ratio"},
        "sustained": {"intervals", "ratio", "seconds"},
    }
    try:
        for command, options in tiny.items():
            done = dspm("bench", command, *options, "--json", env=env)
            assert done.returncode == 0, done.stderr
            assert keys[command] <= json.loads(done.stdout).keys()
        assert json.loads(dspm("ls", "--json", env=env).stdout) == {"datasets": []}
        no_table = dspm("ycsb", "run", "--db", "never-loaded", env=env)
        assert no_table.returncode == 4 and "ycsb load --target dspm --db never-loaded" in no_table.stderr
        assert json.loads(dspm("ls", "--json", env=env).stdout) == {"datasets": []}, "to look for it does not make it"
        assert "interrupted" in _interrupted(env, 130, str(native.program()), "page", "--rounds", "1000000")
        assert "of 10000 rounds were measured" in _interrupted(
            env, 130, str(BIN), "bench", "commit", "--rounds", "10000"
        )
        _interrupted(env, 130, str(BIN), "bench", "sustained")
        assert json.loads(dspm("ls", "--json", env=env).stdout) == {"datasets": []}
    finally:
        assert dspm("down", "--dir", directory).returncode == 0


def _interrupted(env: dict[str, str], status: int, *command: str) -> str:
    """SIGTERM in the middle of a long measurement: it ends, and its dataset goes. Returns what it said."""
    child = subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(2)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == status, err
    return err


def test_without_a_cluster_it_says_so(dspm: Run) -> None:
    done = dspm("bench", "page")
    assert done.returncode == 3
    assert done.stderr.startswith("dspm: error: ")
