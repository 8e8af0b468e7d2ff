"""Calls `dspm-bench`, the program that measures without an interpreter in the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from dspm import _native
from dspm.errors import DspmError, from_code

ERROR = "dspm: error: "
HINT = "hint: "
INTERRUPTED = 130
"""The exit status of the program then, and of `dspm`."""
END_SECONDS = 10.0
"""A program that was interrupted removes its dataset first, and is killed when that takes longer."""


def program() -> Path:
    """The program; it lies beside the node's."""
    path = _native.node_binary().with_name("dspm-bench")
    if not path.is_file():
        raise DspmError(f"{path} is missing: this installation of dspm is not complete", "build it with `make build`")
    return path


def measure(command: str, **numbers: int) -> dict[str, Any]:
    """Runs one measurement and returns its JSON object. Raises what the program says went wrong.

    Interrupted, it returns the rounds that were done by then, with `interrupted`; without any, or where one was all
    that was wanted, it raises.
    """
    arguments = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    child = subprocess.Popen(
        [str(program()), command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = child.communicate()
    except KeyboardInterrupt:
        return _until_now(_end(child), numbers)
    except BaseException:
        _end(child)
        raise
    lines = err.splitlines()
    if child.returncode == INTERRUPTED:
        return _until_now(out, numbers)
    if child.returncode:
        raise _error(command, child.returncode, lines)
    print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    found: dict[str, Any] = json.loads(out)
    return found


def _until_now(out: str, asked: dict[str, int]) -> dict[str, Any]:
    """What an interrupted program printed."""
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        raise KeyboardInterrupt from None
    if asked.get("rounds") == 1:
        raise KeyboardInterrupt
    return {**found, "interrupted": True}


def _end(child: subprocess.Popen[str]) -> str:
    """Ends it; what it printed."""
    child.send_signal(signal.SIGTERM)
    try:
        return child.communicate(timeout=END_SECONDS)[0]
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return ""


def _error(command: str, status: int, lines: list[str]) -> DspmError:
    message = next((x.removeprefix(ERROR) for x in lines if x.startswith(ERROR)), "")
    hint = next((x.removeprefix(HINT) for x in lines if x.startswith(HINT)), "")
    if message:
        return from_code(status if status in (1, 2, 3, 4) else 1, message, hint)
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return DspmError(f"dspm-bench {command} ended {how}", lines[-1][:200] if lines else "")
