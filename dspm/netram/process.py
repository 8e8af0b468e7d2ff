"""Daemons: starting them apart from their starter, knowing them again, ending them.

Invariants: a daemon has a session of its own and keeps no descriptor of the caller; a process is only signalled when
its start time says that it is still the one that was started; a zombie counts as gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dspm.errors import DspmError, from_code

POLL_S = 0.005


class Process(msgspec.Struct, frozen=True):
    """A process of this boot. `start` is field 22 of /proc/PID/stat: numbers are used again, this pair is not."""

    pid: int = 0
    start: int = 0
    boot: str = ""

    @property
    def is_running(self) -> bool:
        """True while it runs or is stopped; a zombie is gone."""
        return self.pid > 0 and self.boot == boot_id() and _start_time(self.pid) == self.start

    @property
    def is_dying(self) -> bool:
        """True when it was killed and the kernel has not ended it yet."""
        if not self.is_running:
            return False
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            flags = int(Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[6])
        except (OSError, IndexError):
            return False
        pending = [int(x.split()[1], 16) for x in status.splitlines() if x.startswith(("SigPnd:", "ShdPnd:"))]
        return bool(flags & _PF_EXITING) or any(p >> (signal.SIGKILL - 1) & 1 for p in pending)


_PF_EXITING = 0x4
NONE = Process()


def boot_id() -> str:
    """Names this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def identify(pid: int) -> Process:
    """The process of that number, as it can be known again."""
    return Process(pid, _start_time(pid) or 0, boot_id())


class Starting:
    """A daemon that was started and has not said yet that it serves."""

    def __init__(self, what: str, arguments: Sequence[str], log: Path, announce: Path, cwd: Path) -> None:
        """`log` gets its stderr (appended), `announce` its stdout (anew)."""
        self.what = what
        self._announce = announce
        self._log = log
        with open(log, "ab", 0) as err, open(announce, "wb", 0) as out:
            self._log_from = err.tell()
            try:
                self._popen = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=cwd,
                    env=_environment(),
                    close_fds=True,
                    start_new_session=True,
                )
            except OSError as e:
                raise DspmError(f"{what} cannot be started: {arguments[0]}: {e.strerror}") from None
        self.process = identify(self._popen.pid)

    def wait(self, timeout_s: float) -> bytes:
        """Its first line of output. Raises what it said on stderr when it ended instead."""
        end = time.monotonic() + timeout_s
        while True:
            line, newline, _ = self._announce.read_bytes().partition(b"\n")
            if newline:
                return line
            if self._popen.poll() is not None:
                raise self._failure(self._popen.returncode)
            if time.monotonic() > end:
                raise from_code(3, f"{self.what} does not serve within {timeout_s:g} s", f"see {self._log}")
            time.sleep(POLL_S)

    def end(self) -> None:
        """Kills it, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait()

    def _failure(self, status: int) -> DspmError:
        with open(self._log, "rb") as f:
            f.seek(self._log_from)
            lines = f.read(64 << 10).decode("utf-8", "replace").splitlines()
        message = next((x for x in lines if x.startswith("dspm: error: ")), "").removeprefix("dspm: error: ")
        hint = next((x for x in lines if x.startswith("hint: ")), "").removeprefix("hint: ")
        if message:
            return from_code(status if status in (1, 2, 3, 4) else 1, f"{self.what}: {message}", hint)
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        last = f": {lines[-1][:200]}" if lines else ""
        return DspmError(f"{self.what} ended {how} before it served{last}", "run the command again with DSPM_LOG=debug")


def _environment() -> Mapping[str, str]:
    """The caller's, without what would configure the daemon behind its arguments' back."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DSPM_") or k == "DSPM_LOG"}


def end_all(processes: Sequence[Process], term_s: float = 10.0, kill_s: float = 10.0) -> None:
    """Ends them with SIGTERM, after `term_s` with SIGKILL, and waits until none is left."""
    left = _signal(processes, signal.SIGTERM, signal.SIGCONT)
    left = _wait(left, term_s)
    left = _wait(_signal(left, signal.SIGKILL), kill_s)
    if left:
        pids = ", ".join(str(p.pid) for p in left)
        raise DspmError(f"processes that SIGKILL did not end: {pids}", "they wait for the kernel; see dmesg")


def await_dying(processes: Sequence[Process], timeout_s: float = 10.0) -> None:
    """Waits for those that were just killed: they look alive and hold their ports and files until they are gone."""
    _wait([p for p in processes if p.is_dying], timeout_s)


def _signal(processes: Sequence[Process], *numbers: signal.Signals) -> list[Process]:
    running = [p for p in processes if p.is_running]
    for p in running:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(p.pid, number)
    return running


def _wait(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    end = time.monotonic() + timeout_s
    left = [p for p in processes if p.is_running]
    while left and time.monotonic() < end:
        time.sleep(POLL_S)
        left = [p for p in left if p.is_running]
    return left
