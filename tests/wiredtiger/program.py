"""The driver (driver.c) as a process: a WiredTiger program that knows nothing of dspm, told what to do by lines."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .engines import Engine

TABLE = "table:t"
SCHEMA = "key_format=q,value_format=S"
SIZE = 600
FSYNC = "transaction_sync=(enabled,method=fsync)"


def compiled(engine: Engine, directory: Path, *, static: bool = False) -> Path:
    """The driver, linked to that engine. Static: WiredTiger is a part of the program, which exports none of it."""
    program = directory / f"driver-{engine.version}"
    source = Path(__file__).with_name("driver.c")
    library = ["-l:libwiredtiger.a", "-ldl"] if static else [f"-Wl,-rpath,{engine.library}", "-lwiredtiger"]
    link = [f"-L{engine.library}", *library, "-pthread"]
    command = [
        "cc",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{engine.include}",
        str(source),
        "-o",
        str(program),
        *link,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@dataclass
class Answer:
    """What one command printed."""

    lines: list[str]
    end: str

    @property
    def ok(self) -> bool:
        return self.end.startswith("ok")

    @property
    def keys(self) -> set[int]:
        """Keys that were acknowledged or found."""
        return {int(x.split()[1]) for x in self.lines if x.startswith(("ack ", "key "))}


@dataclass
class Program:
    """A driver that runs. `errors` is where its WiredTiger's messages go."""

    process: subprocess.Popen[str]
    errors: Path
    acknowledged: set[int] = field(default_factory=set)

    @staticmethod
    def start(program: Path, errors: Path) -> Program:
        with errors.open("a") as sink:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": sink}
            env = {k: v for k, v in os.environ.items() if k != "WIREDTIGER_CONFIG"}
            return Program(subprocess.Popen([str(program)], text=True, env=env, **pipes), errors)

    def send(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, sep="\t", file=self.process.stdin, flush=True)

    def line(self) -> str:
        """The next line; "" at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def answer(self) -> Answer:
        """All lines up to "ok" or "failed", or the end."""
        lines = []
        while (line := self.line()) and not line.startswith(("ok ", "failed ")):
            lines.append(line)
        return Answer(lines, line)

    def do(self, *words: object) -> Answer:
        """A command and its answer."""
        self.send(*words)
        return self.answer()

    def must(self, *words: object) -> Answer:
        """A command that succeeds."""
        answer = self.do(*words)
        assert answer.ok, f"{words}: {answer.end!r}\n{self.said()}"
        return answer

    def insert(self, first: int, count: int, threads: int = 1, commit: str = "-") -> set[int]:
        """Commits rows one by one; every key was acknowledged."""
        keys = self.must("insert", TABLE, first, count, SIZE, threads, commit).keys
        assert keys == set(range(first, first + count * threads))
        return keys

    def rows(self) -> set[int]:
        """Keys of the table, whose values are all what they were."""
        answer = self.must("scan", TABLE, SIZE)
        assert answer.lines[-1] == f"scanned {len(answer.keys)} right 0 wrong"
        return answer.keys

    def said(self) -> str:
        """Messages of its WiredTiger so far."""
        return self.errors.read_text()

    def kill(self) -> Answer:
        """kill -9, and what it had printed before."""
        self.process.send_signal(signal.SIGKILL)
        rest = self.answer()
        self.end()
        return rest

    def end(self) -> None:
        """Ends it, if it still runs."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def extensions(library: Path, entry: str, options: str) -> str:
    """What makes WiredTiger load dspm."""
    return f"extensions=[{library}={{early_load=true,entry={entry},config=[{options}]}}]"


def configuration(library: Path, entry: str, options: str, more: str = FSYNC) -> str:
    """What wiredtiger_open is given."""
    return f"create,log=(enabled,file_max=1MB),{more},{extensions(library, entry, options)}"
