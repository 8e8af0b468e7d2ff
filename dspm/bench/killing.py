"""The demo's second half: writers are killed while they commit, and so is what must not matter to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspm.bench.ledger import Findings, Writer, read_back
from dspm.errors import DspmError, UsageError
from dspm.netram import arenas
from dspm.netram.config import load_cluster
from dspm.netram.layout import Layout
from dspm.netram.status import Survey

LEDGER = "demo-ledger"
END_SECONDS = 10.0
WHOLE_SECONDS = 30.0

Say = Callable[[str], None]


def run(info: dict[str, Any], kills: int, commits: int, say: Say) -> Findings:
    """Kills `kills` writers, each after about `commits` acknowledgements.

    After the first one the registry is killed, and the node that holds no copy of the ledger: the others go on.
    """
    findings = Findings()
    for number in range(kills):
        writer = Writer(LEDGER)
        try:
            say(f"writer {number + 1} of {kills}, pid {writer.pid}, commits one row after the other")
            writer.wait(commits)
        finally:
            rows = writer.kill()
        findings.writers += 1
        findings.acknowledged |= set(rows)
        say(f"  killed with SIGKILL after {len(rows)} acknowledged commits")
        _look(findings, say)
        if number == 0:
            _kill_bystanders(info, say)
    return findings


def fail_over(info: dict[str, Any], findings: Findings, commits: int, say: Say) -> None:
    """Kills a writer and the primary of its ledger together, after about `commits` acknowledgements."""
    _wait_whole()
    ledger = _ledger()
    primary = next(node for node in info["nodes"] if node["name"] == ledger["primary"])
    writer = Writer(LEDGER)
    try:
        say(f"one more writer, pid {writer.pid}; {primary['name']} is the primary of the ledger")
        writer.wait(commits)
        killed = time.monotonic()
        os.kill(primary["pid"], signal.SIGKILL)
    finally:
        rows = writer.kill()
    findings.writers += 1
    findings.acknowledged |= set(rows)
    say(f"  both are killed with SIGKILL after {len(rows)} acknowledged commits")
    other = Writer(LEDGER)
    try:
        other.wait(1)
        findings.away_s = time.monotonic() - killed
        say(
            f"  another process has opened the database and committed {findings.away_s:.2f} s later, its start included"
        )
    finally:
        rows = other.kill()
    findings.writers += 1
    findings.acknowledged |= set(rows)
    _look(findings, say)
    now = _ledger()
    say(f"  {now['primary']} serves in the place of {primary['name']}, generation {now['generation']}")


def _wait_whole() -> None:
    end = time.monotonic() + WHOLE_SECONDS
    while (ledger := _ledger())["copies_now"] < ledger["copies"]:
        if time.monotonic() > end:
            raise DspmError(
                f"the ledger has {ledger['copies_now']} of {ledger['copies']} copies for {WHOLE_SECONDS:g} s"
            )
        time.sleep(0.05)


def _ledger() -> dict[str, Any]:
    with Survey(load_cluster()) as survey:
        return next(d for page in survey.pages() for d in survey.datasets(page) if d["name"] == LEDGER)


def _look(findings: Findings, say: Say) -> None:
    findings.found, findings.integrity = read_back(LEDGER)
    say(
        f"  another process opens it: {len(findings.found)} rows, {len(findings.lost)} lost, "
        f"{len(findings.in_doubt)} in doubt, integrity {findings.integrity}"
    )


def _kill_bystanders(info: dict[str, Any], say: Say) -> None:
    """What must not matter: the registry, and a node that holds no copy of the ledger."""
    ledger = _ledger()
    members = {ledger["primary"], *ledger["backups"]}
    say(f"the ledger lies on {ledger['primary']} and {', '.join(ledger['backups'])}")
    _kill(info["registry"]["pid"])
    say("  the registry is killed with SIGKILL: the next writers go on without it")
    spare = next((node for node in info["nodes"] if node["name"] not in members), None)
    if spare is not None:
        _kill(spare["pid"])
        say(f"  node {spare['name']}, which holds no copy of the ledger, is killed with SIGKILL too")


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + END_SECONDS
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.005)


def _runs(pid: int) -> bool:
    """False for a zombie too: whoever started it may not have noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def remove(directory: Path) -> None:
    """Makes room for a new cluster: takes away the one that an earlier run left, and nothing else."""
    if not directory.exists():
        return
    if any(directory.iterdir()) and Layout(directory).read_state() is None:
        raise UsageError(f"{directory} is there and holds no cluster", "give another --directory")
    arenas.clear(directory)
    shutil.rmtree(directory)


def give_memory_back(directory: Path) -> None:
    """Frees the memory of a cluster that was taken down; what it has on disk, and its logs, stay until the next run."""
    with contextlib.suppress(DspmError, OSError):
        arenas.clear(directory)
