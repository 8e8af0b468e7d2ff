"""Fixtures of the whole-system tests: the command as users run it, and clusters that end with their test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent / "dspm"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on the configuration of whoever runs it."""
    for name in [n for n in os.environ if n.startswith("DSPM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))


@pytest.fixture
def dspm() -> Run:
    """Runs `dspm` as a process of its own; `env` adds variables."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(BIN), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})

    return run


def write_key(path: Path, text: str) -> None:
    """A key file as it has to be: for its owner alone."""
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for `dspm up`; whatever runs there is ended, and its arenas are removed."""
    from dspm.netram import arenas

    path = tmp_path / "cluster"
    yield path
    arenas.clear(path)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nodes of this process's launcher are `peer.py`, which keeps no pages. Returns the program, to be changed."""
    program = tmp_path / "stand-in"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "peer.py"}" "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr("dspm._native.node_binary", lambda: program)
    return program


def _hear_signals() -> None:
    """Tests send signals to programs; who runs them under nohup, or behind an `&`, would hand "ignored" down."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


_hear_signals()
