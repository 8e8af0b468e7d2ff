"""`make demo`: a cluster on this machine, YCSB on SQLite in it, then writers killed while they commit.

Ends with 0 if every acknowledged commit was found again, 1 if not, 130 when interrupted; the cluster is always taken
down. Writes the figures to build/demo.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from dspm.bench import killing
from dspm.bench.ledger import Findings
from dspm.bench.ycsb.compare import compare
from dspm.bench.ycsb.result import Comparison
from dspm.bench.ycsb.runner import check
from dspm.bench.ycsb.settings import Settings, default_directory
from dspm.bench.ycsb.table import print_comparison
from dspm.bench.ycsb.target import COMPARED, prepare_directory, target_named
from dspm.bench.ycsb.workload import workload_named
from dspm.errors import DspmError
from dspm.netram.cluster import Asked, down, up

NODES = 3
MEMORY = "256MiB"
TABLE_WIDTH_PIPED = 170
ONE_MACHINE = (
    'All of this ran on one machine: here "two memories" are the memories of two processes. They outlive any one\n'
    "process, not the machine. On two machines the same commit outlives either of them."
)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dspm.bench.demo", description="YCSB, a killed writer, nothing lost.")
    parser.add_argument("--directory", type=Path, default=Path("build/demo-cluster"), help="of the cluster; made anew")
    parser.add_argument("--output", type=Path, default=Path("build/demo.json"), help="file for the figures")
    parser.add_argument("--records", type=int, default=2000, help="in the table")
    parser.add_argument("--operations", type=int, default=4000, help="of a round, all processes together")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest round")
    parser.add_argument("--rounds", type=int, default=3, help="of each target")
    parser.add_argument("--processes", type=int, default=2, help="that run YCSB")
    parser.add_argument("--targets", nargs="+", default=COMPARED, choices=COMPARED, help="to compare, dspm first")
    parser.add_argument("--commits", type=int, default=500, help="acknowledged before a writer is killed")
    parser.add_argument("--kills", type=int, default=3, help="writers that are killed, one after the other")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Runs the demo and returns the exit status."""
    asked = _arguments(argv)
    started = time.monotonic()
    try:
        asked.output.unlink(missing_ok=True)
        with _interruptible(), _own_environment(), _cluster(asked.directory) as info:
            comparison = _measure(asked)
            findings = killing.run(info, asked.kills, asked.commits, _say)
            _say("what was killed is started again")
            killing.fail_over(_up(asked.directory), findings, asked.commits, _say)
        _report(comparison, findings)
        _write(asked.output, comparison, findings)
        _say(f"{asked.output} holds the figures; {time.monotonic() - started:.0f} s")
        check(comparison.results)
    except DspmError as error:
        print(f"dspm: error: {error}", file=sys.stderr)
        print(f"hint: {error.hint or 'the messages above say how far it came'}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dspm: interrupted", file=sys.stderr)
        return 130
    return 0 if findings.sound else 1


def _say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP take the cluster down as Ctrl-C does."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """The demo has its own cluster and default settings, whatever cluster the user has configured."""
    mine = {name: value for name, value in os.environ.items() if name.startswith("DSPM_")}
    for name in mine:
        del os.environ[name]
    try:
        yield
    finally:
        for name in [n for n in os.environ if n.startswith("DSPM_")]:
            del os.environ[name]
        os.environ.update(mine)


def _up(directory: Path) -> dict[str, Any]:
    """Starts what does not run."""
    return up(directory, Asked(NODES, {"memory": MEMORY, "copies": "2", "durability": "memory"}))


@contextlib.contextmanager
def _cluster(directory: Path) -> Iterator[dict[str, Any]]:
    """A new cluster. Whatever happens it is taken down, and its memory is given back."""
    killing.remove(directory)
    _say(f"starting {NODES} nodes and a registry in {directory}")
    try:
        info = _up(directory)
        os.environ["DSPM_CONFIG"] = info["config"]
        yield info
    finally:
        with _uninterrupted():
            _say("taking the cluster down")
            with contextlib.suppress(DspmError):
                down(directory)
            killing.give_memory_back(directory)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not leave half a cluster."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measure(asked: argparse.Namespace) -> Comparison:
    settings = Settings(
        workload=workload_named("a"),
        records=asked.records,
        operations=asked.operations,
        processes=asked.processes,
        seconds_max=asked.seconds,
        db="demo-ycsb",
        directory=default_directory(),
    )
    targets = list(_possible(settings, asked.targets))
    _say(f"YCSB A, half reads and half updates, {asked.processes} processes, through SQLite on {', '.join(targets)}")
    found = compare(settings, targets, rounds=asked.rounds, progress=lambda text: _say(f"  {text}"))
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def _possible(settings: Settings, names: Sequence[str]) -> Iterator[str]:
    """The targets that this machine has a place for."""
    for name in names:
        try:
            prepare_directory(target_named(name), settings)
        except DspmError as error:
            _say(f"  without {name}: {error}")
        else:
            yield name


def _report(comparison: Comparison, findings: Findings) -> None:
    console = Console()
    _say("")
    print_comparison(comparison, console if console.is_terminal else Console(width=TABLE_WIDTH_PIPED))
    _say("")
    _say(f"{findings.writers} writers were killed with SIGKILL while they committed; another process looked:")
    _say(f"  acknowledged {len(findings.acknowledged)}, found {len(findings.found)}, lost {len(findings.lost)}")
    _say(f"  in doubt (under way when the writer died, and there): {len(findings.in_doubt)}")
    _say(f"  PRAGMA integrity_check: {findings.integrity}")
    _say(f"  writer and primary killed together: acknowledged commits go on after {findings.away_s:.2f} s")
    _say("NOTHING IS LOST" if findings.sound else "SOMETHING IS WRONG: this must never happen; please report it")
    _say("")
    _say(ONE_MACHINE)


def _write(path: Path, comparison: Comparison, findings: Findings) -> None:
    base = comparison.base
    document = {
        "acknowledged": len(findings.acknowledged),
        "found": len(findings.found),
        "lost": len(findings.lost),
        "in_doubt": len(findings.in_doubt),
        "integrity": findings.integrity,
        "away_s": findings.away_s,
        "ratios": {e.target.name: comparison.ratio(e) for e in comparison.entries if e is not base},
        "fdatasync_us": comparison.fdatasync_us,
        "throughput": {e.target.name: e.throughput for e in comparison.entries},
        "durability": {e.target.name: e.middle.facts.durability for e in comparison.entries},
        "copies": {e.target.name: e.middle.facts.copies for e in comparison.entries},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
