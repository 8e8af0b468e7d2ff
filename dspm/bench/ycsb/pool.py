"""Worker processes: started anew for each phase, begun together, ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dspm
from dspm.bench.ycsb.messages import END_CALLS, Failure, Go, Ready, Task
from dspm.errors import DspmError

WORKER_MODULE = "dspm.bench.ycsb.worker"
START_LEAD_NS = 20_000_000
"""How far ahead the common start is set, so that every worker has heard of it in time."""
END_SECONDS_MAX = 5.0


class Pool:
    """One process a task. Used as a context, which ends them."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []

    def __enter__(self) -> Self:
        try:
            for task in self._tasks:
                self._start(task)
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, task: Task) -> None:
        ours, theirs = Pipe()
        try:
            self._connections.append(ours)
            descriptor = theirs.fileno()
            command = [sys.executable, "-m", WORKER_MODULE, str(descriptor)]
            self._processes.append(
                subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, env=_environment())
            )
        finally:
            theirs.close()
        ours.send(task)

    def start_together(self) -> None:
        """Waits until every worker is ready, then lets all begin at one moment."""
        for connection in self._connections:
            answer = self._receive(connection)
            assert isinstance(answer, Ready), answer
        go = Go(time.monotonic_ns() + START_LEAD_NS)
        for connection in self._connections:
            connection.send(go)

    def results(self) -> list[Any]:
        """Every worker's result, in the order of the tasks."""
        return [self._receive(connection) for connection in self._connections]

    def results_until_interrupted(self) -> tuple[list[Any], bool]:
        """The same; an interruption ends the timed phase, and the results are of what was done until then. A second one
        raises, for who does not want to wait for operations that hang. Also tells whether there was one.
        """
        interrupted = False

        def interrupt(_number: int, _frame: object) -> None:
            nonlocal interrupted
            if interrupted:
                raise KeyboardInterrupt
            interrupted = True
            for process in self._processes:
                process.send_signal(END_CALLS)

        with _handling(interrupt):
            results = self.results()
        return results, interrupted

    def _receive(self, connection: Connection) -> Any:
        try:
            answer = connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise DspmError("a worker process ended without an answer", "its last words are above, if any") from error
        if isinstance(answer, Failure):
            raise answer.error
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kill=error is not None)

    def _end(self, *, kill: bool = True) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if kill:
                process.kill()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Signals that interrupt go to the handler, in the one thread that Python gives signals to."""
    mine = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM) if mine}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def run_task(task: Task) -> Any:
    """Does one task that needs no common start in a process of its own."""
    with Pool([task]) as pool:
        return pool.results()[0]


def _environment() -> dict[str, str]:
    """This environment, with the package importable from where it was imported here."""
    root = str(Path(dspm.__path__[0]).parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, inherited]) if inherited else root}
