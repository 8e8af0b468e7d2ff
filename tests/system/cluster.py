"""A cluster of `dspm up` as the tests see it: the command, its processes, and what happens to them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent / "dspm"
COMMAND_SECONDS = 90.0
WAIT_SECONDS = 30.0
MEMORY = "128MiB"

_numbers = itertools.count(1)


def clean_environment() -> dict[str, str]:
    """The caller's, without what would choose or change a cluster."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DSPM_")}
    return {**kept, "XDG_CONFIG_HOME": "/nonexistent"}


def command(*arguments: object, prefix: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `dspm`; the caller looks at its exit status."""
    return subprocess.run(
        [*prefix, str(BIN), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env={**clean_environment(), **env},
    )


def state_of(pid: int) -> str:
    """The kernel's letter for a process; empty if it is gone. A zombie is Z: PID 1 may reap only after seconds."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """True while it runs or is stopped, or a thread of it still ends: only with the last one its locks are free."""
    if state_of(pid) not in ("", "Z", "X"):
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def eventually(what: str, true: Callable[[], bool], seconds: float = WAIT_SECONDS, pause: float = 0.02) -> None:
    """Waits until `true()`; the bound is only there so that a test ends."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(pause)


class Cluster:
    """Nodes and a registry on this machine, in a directory of their own."""

    def __init__(self, directory: Path, nodes: int = 3, settings: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.prefix: tuple[str, ...] = ()
        self._first = ["--nodes", str(nodes)]
        for key, value in {"memory": MEMORY, **(settings or {})}.items():
            self._first += ["--set", f"{key}={value}"]
        self.info: dict[str, Any] = {"nodes": [], "registry": {"pid": 0}}

    def up(self) -> None:
        """Starts what is missing."""
        first, self._first = self._first, []
        done = command("up", "--dir", self.directory, *first, "--json", prefix=self.prefix)
        assert done.returncode == 0, f"dspm up: exit {done.returncode}: {done.stderr}"
        self.info = json.loads(done.stdout)

    def down(self) -> None:
        """Ends all processes; the data stays."""
        done = command("down", "--dir", self.directory, prefix=self.prefix)
        assert done.returncode == 0, f"dspm down: exit {done.returncode}: {done.stderr}"
        assert not [pid for pid in self.pids() if alive(pid)], "dspm down left processes"

    def end(self) -> None:
        """Takes everything away, whatever state it is in."""
        from dspm.netram import arenas

        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.down()
        for pid in filter(alive, self.pids()):
            os.kill(pid, signal.SIGKILL)
        arenas.clear(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    def mend(self) -> None:
        """Lets what is stopped go on and starts what is missing, so that the next test finds all of it."""
        if not self.info["nodes"]:
            return
        for pid in self.pids():
            if state_of(pid) == "T":
                os.kill(pid, signal.SIGCONT)
        if not all(alive(pid) for pid in self.pids()):
            self.up()

    @property
    def config(self) -> str:
        """Path of the configuration."""
        return str(self.info["config"])

    @property
    def registry(self) -> int:
        """The registry's process."""
        return int(self.info["registry"]["pid"])

    @property
    def nodes(self) -> list[str]:
        """The nodes' names."""
        return [str(n["name"]) for n in self.info["nodes"]]

    def pid(self, node: str) -> int:
        """The node's process."""
        return next(int(n["pid"]) for n in self.info["nodes"] if n["name"] == node)

    def pids(self) -> list[int]:
        """All processes, the registry's too."""
        return [int(n["pid"]) for n in self.info["nodes"]] + ([self.registry] if self.registry else [])

    def arena(self, node: str) -> Path:
        """The file of the node's memory."""
        return next(Path(n["arena_file"]) for n in self.info["nodes"] if n["name"] == node)

    def run(self, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs `dspm` for this cluster."""
        return command(*arguments, prefix=self.prefix, DSPM_CONFIG=self.config, **env)

    def status(self) -> dict[str, Any]:
        """What `dspm status --json` says."""
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def dataset(self, name: str) -> dict[str, Any]:
        """What `dspm status --json` says of one dataset."""
        return next(d for d in self.status()["datasets"] if d["name"] == name)

    def members(self, name: str) -> tuple[str, list[str]]:
        """The dataset's primary and its backups."""
        d = self.dataset(name)
        return str(d["primary"]), list(d["backups"])

    def kill(self, pid: int) -> None:
        """SIGKILL, and waits until it is gone."""
        os.kill(pid, signal.SIGKILL)
        eventually(f"process {pid} is gone", lambda: not alive(pid), pause=0.002)

    def cut_power(self) -> None:
        """What a power cut leaves: all processes go at once, nodes and registry, and all memories; the disks stay."""
        arenas = [self.arena(node) for node in self.nodes]
        for pid in self.pids():
            self.kill(pid)
        for arena in arenas:
            arena.unlink()

    def wait_whole(self, name: str) -> None:
        """Waits until all copies of a dataset answer and are settled."""
        eventually(f"{name} is whole", lambda: self.dataset(name)["copies_now"] == self.dataset(name)["copies"])


def fresh(stem: str) -> str:
    """A name that no other test of this run has used."""
    return f"{stem}-{os.getpid()}-{next(_numbers)}.db"
