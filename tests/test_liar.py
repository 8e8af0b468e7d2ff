"""The client core against nodes that lie: no crash, no hang, no page whose content does not fit its checksum.

Every call ends well or with an error of dspm; when the nodes speak the truth again, the same process works with them,
and another finds nothing wrong in what it wrote meanwhile. A primary that lies well about a group's newest commit is
believed by the processes that use the group: whether they can go on with that one is not asked here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lied_to
import pytest
from clusters import cluster, config  # noqa: F401
from liar import HARMS, KINDS, Liar

from dspm.errors import DspmError
from dspm.txn import Dataset, PageNo

SEED = int(os.environ.get("LIAR_SEED", "1"))
ROUND_S = 1.5
ROUNDS_MIN = int(os.environ.get("LIAR_ROUNDS", "1"))
ROUNDS_MAX = ROUNDS_MIN + 40


@pytest.fixture
def liars(config: Path) -> Iterator[list[Liar]]:  # noqa: F811
    nodes = tomllib.loads(config.read_text())["nodes"]
    liars = [Liar(node, SEED + i) for i, node in enumerate(nodes)]
    for liar in liars:
        liar.instead = {other.real: other.address for other in liars}
    yield liars
    for liar in liars:
        liar.close()


class Program:
    """`lied_to.py`, of whose cluster it knows the liars alone."""

    def __init__(self, liars: list[Liar], errors: Path) -> None:
        nodes = ",".join(liar.address for liar in liars)
        env = {**os.environ, "DSPM_NODES": nodes, "DSPM_COMMIT_TIMEOUT": "500ms", "RUST_BACKTRACE": "1"}
        self.errors = errors
        with errors.open("w") as stderr:
            command = [sys.executable, lied_to.__file__]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=stderr, text=True)

    def ask(self, line: str) -> dict[str, int]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, f"LIAR_SEED={SEED}: it ended\n{self.errors.read_text()[-4000:]}"
        reply: dict[str, int] = json.loads(said)
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def rival(stop: threading.Event) -> None:
    """Another process's writer, whom nobody lies to: its wishes are what call-backs are made of."""
    with Dataset.open("lied-about", create=True, settings={"commit_timeout": "2s"}) as ds:
        while not stop.wait(0.03):
            try:
                with ds.transaction(wait=0.2) as t:
                    t.write(PageNo(0), bytes(4096))
            except DspmError:
                pass  # the other one holds the lease, and cannot be reached


def test_nodes_that_lie(cluster: Path, liars: list[Liar], tmp_path: Path) -> None:  # noqa: F811
    program, stop, came = Program(liars, tmp_path / "errors"), threading.Event(), Counter[str]()
    thread = threading.Thread(target=rival, args=(stop,))
    thread.start()
    try:
        program.ask("work before")
        for liar in liars:
            liar.lies = True
        for n in range(ROUNDS_MAX):
            came.update(program.ask(f"run {ROUND_S} {SEED * 1000 + n}"))
            told: Counter[Any] = sum((liar.told for liar in liars), Counter[str]())
            if n + 1 >= ROUNDS_MIN and told.keys() >= {*KINDS.values(), *HARMS}:
                break
        for liar in liars:
            liar.lies = False
        assert told.keys() >= {*KINDS.values(), *HARMS}, {*KINDS.values(), *HARMS} - told.keys()
        assert came["written"] and came["read"], "nothing came through between the lies"
        assert came["bad pages"] == 0
        assert program.ask("work after") == {"bad pages": 0}
        assert "panicked" not in program.errors.read_text(), program.errors.read_text()[:4000]
        stop.set()
        thread.join()
        program.close()
        program = Program(liars, tmp_path / "errors")
        assert program.ask("work lied-about") == {"bad pages": 0}
    finally:
        stop.set()
        thread.join()
        program.close()
