"""Runs SQLite's own test programs on databases of a cluster: `make sqlite-tests`.

mptest: five processes work on one database by scripts, and check what they read; `crash01` and `config02` kill them in
the middle of transactions. speedtest1: SQLite's benchmark, whose hash over everything that it read has to be that of
plain SQLite; the targets take turns, so that the ratio of their times says something.

Fails on the first error that a program counts, prints or returns, or when it does not end in time.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..system.cluster import Cluster, clean_environment, command
from .source import Missing, compiled, tree

SCRIPTS = ("multiwrite01", "crash01", "config01", "config02")
PROGRAM_SECONDS = 300
BUSY_MS = 20_000
ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A program found an error."""


@contextmanager
def a_cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="dspm-sqlite-") as directory:
        cluster = Cluster(Path(directory) / "c", 3, {"memory": "512MiB"})
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.end()


def run(words: list[object], cwd: Path, env: dict[str, str]) -> str:
    """Everything that a program wrote. Its children hold the pipe, so this waits for them too."""
    argv = [str(w) for w in words]
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PROGRAM_SECONDS
        )
    except subprocess.TimeoutExpired as e:
        said = e.stdout.decode(errors="replace") if isinstance(e.stdout, bytes) else e.stdout or ""
        raise Failed(f"{' '.join(argv)} did not end within {PROGRAM_SECONDS} s\n{said[-2000:]}") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def script(source: Path, name: str, build: Path) -> Path:
    """A script of mptest, with the parts that it keeps for the VFS `unix`, which need nothing that only files have."""
    for original in (source / "mptest").glob("*.*test"):
        text = original.read_text()
        (build / original.name).write_text(text.replace("--if vfsname() GLOB 'unix'", "--if vfsname() GLOB 'dspm'"))
    return build / f"{name}.test"


def mptest(program: Path, file: Path, env: dict[str, str]) -> None:
    said = run([program, f"{file.stem}.db", file, "--vfs", "dspm", "--sync", "--timeout", BUSY_MS], file.parent, env)
    summary = re.search(r"Summary: (\d+) errors out of (\d+) tests", said)
    wrong = [line for line in said.splitlines() if re.search(r"ERROR|FATAL|dspm: ", line)]
    if not summary or summary[1] != "0" or summary[2] == "0" or wrong:
        found = "\n".join([summary[0] if summary else "no summary", *wrong, said[-2000:]])
        raise Failed(f"mptest {file.name}: {found}")
    print(f"mptest {file.stem:14} {summary[2]:>5} tests, 0 errors", flush=True)


def speedtest(program: Path, place: list[object], size: int, env: dict[str, str], cwd: Path) -> tuple[float, str]:
    """Seconds that it measured, and the hash over what it read."""
    said = run([program, "--size", size, "--verify", *place], cwd, env)
    total = re.search(r"TOTAL\.+ +([0-9.]+)s", said)
    digest = re.search(r"Verification Hash: (.+)", said)
    if not total or not digest or "dspm: " in said:
        raise Failed(f"speedtest1 {place}: no total, no hash, or an error\n{said[-2000:]}")
    return float(total[1]), digest[1]


def compare(program: Path, size: int, rounds: int, env: dict[str, str], build: Path) -> None:
    """The same work on a cluster, on the disk and on tmpfs in turns."""
    with tempfile.TemporaryDirectory(dir=build) as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as tmpfs:
        targets: dict[str, list[object]] = {"dspm": ["--vfs", "dspm", "speedtest1.db"]}
        for name, directory in (("disk", disk), ("tmpfs", tmpfs)):
            for mode in ("wal", "delete"):
                targets[f"{name} {mode}"] = ["--journal", mode, f"{directory}/{mode}.db"]
        seconds: dict[str, list[float]] = {name: [] for name in targets}
        hashes: dict[str, str] = {}
        for _ in range(rounds):
            for name, place in targets.items():
                took, hashes[name] = speedtest(program, place, size, env, build)
                seconds[name].append(took)
    if len(set(hashes.values())) != 1:
        raise Failed(f"speedtest1 read something else on one of them: {hashes}")
    ours = statistics.median(seconds["dspm"])
    for name, all_of_them in seconds.items():
        m = statistics.median(all_of_them)
        print(f"speedtest1 --size {size} {name:12} {m:7.2f} s (median of {rounds}), {m / ours:.2f} x dspm", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sqlite-tests", description=__doc__)
    parser.add_argument("--size", type=int, default=100, help="of speedtest1; 100 is its own default")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    build = ROOT / "build" / "sqlite-tests"
    build.mkdir(parents=True, exist_ok=True)
    try:
        source = tree(build)
        programs = compiled(source, build)
    except Missing as e:
        print(f"make: {e}", file=sys.stderr)
        return 2
    extension = command("path", "sqlite").stdout.strip()
    try:
        with a_cluster() as cluster:
            env = {**clean_environment(), "DSPM_CONFIG": cluster.config, "SQLITE_TEST_EXTENSION": extension}
            for name in SCRIPTS:
                mptest(programs["mptest"], script(source, name, build), env)
            compare(programs["speedtest1"], given.size, given.rounds, env, build)
    except Failed as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
