"""Processes that own a database path, as WiredTiger's file system does: told what to do, killed, stopped."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from pathlib import Path

from .cluster import Cluster, alive, clean_environment

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 120.0


class OwnerError(Exception):
    """What a call failed with."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(f"{text} (errno {errno})")
        self.errno = errno


def program() -> Path:
    """The program; cargo builds it if it is not there."""
    command = ["cargo", "build", "-q", "--release", "--locked", "-p", "dspm-wiredtiger", "--example", "path_owner"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "examples" / "path_owner"


class Owner:
    """One process. It answers a line for each call, and lines in between that say how far it is."""

    def __init__(self, binary: Path, cluster: Cluster, name: str, **env: str) -> None:
        pipes = subprocess.PIPE
        self.process = subprocess.Popen(
            [*cluster.prefix, str(binary), name],
            stdin=pipes,
            stdout=pipes,
            text=True,
            start_new_session=True,
            env={**clean_environment(), "DSPM_CONFIG": cluster.config, **env},
        )
        self._said: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.progress: list[int] = []
        self.answer()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self.process.stdout:
                self._said.put(line.rstrip("\n"))
        self._said.put(None)

    def begin(self, *words: object) -> None:
        """Starts a call; `answer` has its outcome."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def _next(self) -> str | None:
        try:
            return self._said.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise AssertionError(f"no answer within {ANSWER_SECONDS:g} s") from None

    def _note(self, line: str | None) -> bool:
        """True for a line that says how far it is."""
        assert line is not None, f"the process ended, status {self.process.wait(10)}"
        if line.startswith(("ok", "error")):
            return False
        self.progress.append(int(line.split()[1]))
        return True

    def wait(self, n: int) -> None:
        """Waits until it is that far."""
        while not self.progress or self.progress[-1] < n:
            line = self._next()
            assert self._note(line), f"it ended before it was as far as {n}: {line}"

    def answer(self) -> str:
        """What the call said. Raises OwnerError if it failed."""
        line = self._next()
        while self._note(line):
            line = self._next()
        assert line is not None
        word, _, rest = line.partition(" ")
        if word == "error":
            errno, _, text = rest.partition(" ")
            raise OwnerError(int(errno), text)
        return rest

    def call(self, *words: object) -> str:
        """Has something done."""
        self.begin(*words)
        return self.answer()

    def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; what it said until then is noted."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        while (line := self._said.get(timeout=20)) is not None:
            self._note(line)

    def end(self) -> None:
        """Takes it away, whatever state it is in."""
        if alive(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()
