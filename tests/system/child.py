"""Processes that use databases: started, asked, killed. What they said is kept here, outside of them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from .cluster import Cluster, clean_environment

PROGRAMS = Path(__file__).parent / "programs"
ANSWER_SECONDS = 60.0

Row = list[Any]


class SqlError(Exception):
    """What a statement failed with: SQLite's (extended) code, and the reason that the VFS gives."""

    def __init__(self, code: int, text: str, reason: str) -> None:
        super().__init__(f"{text} (code {code}): {reason}")
        self.code = code
        self.text = text
        self.reason = reason

    @property
    def primary(self) -> int:
        """SQLite's code without its extension."""
        return self.code & 0xFF


class Children:
    """All processes that a test started; they end with it."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[str]] = []

    def start(
        self, cluster: Cluster, program: str, *arguments: object, pass_fds: tuple[int, ...] = (), **options: Any
    ) -> subprocess.Popen[str]:
        """Starts one of the programs of this directory with the cluster's configuration. `env` adds variables."""
        env = {**clean_environment(), "DSPM_CONFIG": cluster.config, **options.pop("env", {})}
        argv = [*cluster.prefix, sys.executable, "-u", str(PROGRAMS / f"{program}.py"), *map(str, arguments)]
        p = subprocess.Popen(argv, text=True, env=env, pass_fds=pass_fds, start_new_session=True, **options)
        self._all.append(p)
        return p

    def results(
        self, cluster: Cluster, program: str, *calls: tuple[object, ...], seconds: float = ANSWER_SECONDS
    ) -> list[Any]:
        """Runs the program once for each tuple of arguments, all at once; returns the JSON that each printed."""
        started = [self.start(cluster, program, *c, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for c in calls]
        return [result(p, seconds) for p in started]

    def session(self, cluster: Cluster, name: str | None = None, **env: str) -> Session:
        """A process that runs the statements it is told, with a connection to `name`."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        session = Session(self.start(cluster, "session", env=env, **pipes))
        if name is not None:
            session.open(name)
        return session

    def end(self) -> None:
        """Kills those that are left."""
        for p in self._all:
            if p.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(p.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(20)
            for stream in (p.stdin, p.stdout, p.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):
                        stream.close()


def result(process: subprocess.Popen[str], seconds: float = ANSWER_SECONDS) -> Any:
    """Waits for the end of a program that prints JSON."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, f"exit {process.returncode}: {err[-2000:]}"
    return json.loads(out)


class Session:
    """A process with connections to databases. One statement at a time; it may be stopped or killed in the middle."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def open(self, name: str, at: str = "main") -> None:
        """Opens a connection, known as `at`."""
        self.send("open", name, at=at)
        self.answer()

    def close(self, at: str = "main") -> None:
        """Closes a connection."""
        self.send("close", at=at)
        self.answer()

    def send(self, do: str, text: str = "", arguments: Row | None = None, at: str = "main") -> None:
        """Tells the process what to do; `answer` has the outcome."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "text": text, "arguments": arguments or [], "at": at}) + "\n")
        self.process.stdin.flush()

    def begin(self, text: str, *arguments: Any, at: str = "main") -> None:
        """Starts a statement; `answer` has the outcome."""
        self.send("sql", text, list(arguments), at)

    def answer(self, seconds: float = ANSWER_SECONDS) -> list[Row]:
        """The rows of what was begun. Raises SqlError if it failed."""
        try:
            said = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no answer within {seconds:g} s") from None
        assert said is not None, f"the process ended, status {self.process.wait(10)}"
        if "code" in said:
            raise SqlError(said["code"], said["text"], said["reason"])
        rows: list[Row] = said["rows"]
        return rows

    def is_waiting(self, seconds: float) -> bool:
        """True if no answer comes for that long."""
        try:
            said = self._answers.get(timeout=seconds)
        except queue.Empty:
            return True
        self._answers.put(said)
        return False

    def sql(self, text: str, *arguments: Any, at: str = "main") -> list[Row]:
        """Runs a statement; returns its rows."""
        self.begin(text, *arguments, at=at)
        return self.answer()

    def one(self, text: str, *arguments: Any, at: str = "main") -> Any:
        """The only cell of the only row."""
        ((cell,),) = self.sql(text, *arguments, at=at)
        return cell

    def status(self, at: str = "main") -> dict[str, Any]:
        """What PRAGMA dspm_status says."""
        found: dict[str, Any] = json.loads(self.one("PRAGMA dspm_status", at=at))
        return found

    def signal(self, number: int) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        self.process.kill()
        self.process.wait(30)


class Lines:
    """The output of a process, in a file of ours: complete lines only, since one without its end was not said."""

    def __init__(self) -> None:
        fd, path = tempfile.mkstemp(prefix="dspm-test-")
        os.unlink(path)
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    def read(self) -> list[str]:
        """All lines so far."""
        raw = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        return [line.decode() for line in raw.split(b"\n")[:-1]]
