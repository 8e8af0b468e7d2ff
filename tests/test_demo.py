"""`make demo`: it finds every acknowledged commit, says so in its file, and leaves nothing running however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dspm.bench import demo, killing
from dspm.bench.ledger import Findings
from dspm.errors import UsageError
from dspm.netram.layout import Layout
from dspm.netram.node import SHARED_MEMORY, directory_tag

TINY = ("--records", "50", "--operations", "40", "--rounds", "1", "--processes", "1", "--commits", "20", "--kills", "2")
TWO = ("--targets", "dspm", "tmpfs")


def words(tmp_path: Path) -> list[str]:
    return ["--directory", str(tmp_path / "cluster"), "--output", str(tmp_path / "out" / "demo.json"), *TINY, *TWO]


def left(directory: Path) -> list[object]:
    """Processes and memory of the cluster that are still there."""
    state = Layout(directory).read_state()
    running = [p.pid for p in state.processes() if p.is_running] if state else []
    return [*running, *SHARED_MEMORY.glob(f"*{directory_tag(directory)}*")]


def test_every_acknowledged_commit_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(words(tmp_path)) == 0
    found = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert found["lost"] == 0
    assert found["acknowledged"] >= 40
    assert found["acknowledged"] <= found["found"] <= found["acknowledged"] + 4
    assert found["away_s"] > 0
    assert found["copies"]["dspm"] == 2 and found["durability"]["dspm"] == "memory"
    assert "dspm" not in found["ratios"] and all(ratio > 0 for ratio in found["ratios"].values())
    assert found["fdatasync_us"] > 0
    said = capsys.readouterr().out
    for text in ("registry is killed", "holds no copy", "NOTHING IS LOST", "two memories", "copies", "integrity_check"):
        assert text in said
    assert left(tmp_path / "cluster") == []
    assert not [name for name in os.environ if name.startswith("DSPM_")]


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "  round 1 of"), (signal.SIGTERM, "writer 2 of"), (signal.SIGHUP, "starting")],
)
def test_interrupted_it_takes_the_cluster_down(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    command = [sys.executable, "-u", "-m", "dspm.bench.demo", *words(tmp_path), "--kills", "1000"]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    )
    assert child.stdout is not None
    lines = iter(child.stdout.readline, "")
    assert any(line.startswith(moment) for line in lines)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.strip().endswith("dspm: interrupted") and "Traceback" not in err
    assert left(tmp_path / "cluster") == []
    assert not (tmp_path / "out" / "demo.json").exists()


def _hear_interrupts() -> None:
    """Whatever runs the tests may ignore SIGINT, as shells make their background jobs do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError):
        killing.remove(tmp_path / "cluster")
    assert demo.main(words(tmp_path)) == 2
    assert (tmp_path / "cluster" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("findings", "sound"),
    [
        (Findings({0, 1}, {0, 1}, 1, "ok"), True),
        (Findings({0, 1}, {0, 1, 2}, 1, "ok"), True),
        (Findings({0, 1}, {0, 1, 2, 3}, 1, "ok"), False),
        (Findings({0, 1}, {0}, 1, "ok"), False),
        (Findings({0, 1}, {0, 1}, 1, "row 3 missing from index"), False),
        (Findings({0, 1}, {0, 1}, 1), False),
    ],
)
def test_what_counts_as_sound(findings: Findings, sound: bool) -> None:
    assert findings.sound is sound
