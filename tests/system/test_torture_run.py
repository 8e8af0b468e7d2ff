"""`make torture`, a few faults of it: the runner, its files, and a checker that would have seen a loss.

The long runs are in docs/torture.md; `test_torture.py` harms clusters from within pytest, without links and disks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dspm.bench.torture.check import check
from dspm.bench.torture.history import BEGIN, END, FINAL, NEMESIS, OK, TRANSFER, read
from dspm.bench.torture.problem import LOST

from .cluster import clean_environment

FAULTS = 12


@pytest.mark.seconds(400)
def test_a_dozen_faults(tmp_path: Path) -> None:
    """Guards invariants 1 to 6 under faults on real processes, links and disks; and the checker against blindness."""
    output = tmp_path / "torture.json"
    command = [sys.executable, "-m", "dspm.bench.torture", "--faults", str(FAULTS), "--seed", "5", "--nodes", "4"]
    command += ["--directory", str(tmp_path / "c"), "--output", str(output)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    assert "NOTHING IS LOST, NOTHING IS WRONG" in done.stdout
    assert not (tmp_path / "c").exists(), "it cleans up"
    found = json.loads(output.read_text())
    assert (found["lost"], found["wrong"], found["stuck"], found["verdict"]) == (0, 0, [], "ok")
    assert found["faults"] == sum(found["faults_by_kind"].values()) == FAULTS == found["recoveries"]
    assert found["acknowledged"] > FAULTS and found["unavailable_ms"]["max"] > 0

    history = read(output.with_suffix(".jsonl"))
    told = [e for e in history.events if e.process == NEMESIS]
    assert sorted(e.operation for e in told) == [BEGIN] * FAULTS + [END] * FAULTS
    assert len(history.finals("bank")) == 2, "from the copy that served, and from another one"
    last = max((e for e in history.events if e.operation == TRANSFER and e.type == OK), key=lambda e: e.value["seq"])
    for e in history.events:
        if e.operation == FINAL and e.value and e.value.get("table") == "transfer":
            e.value["rows"] = [row for row in e.value["rows"] if row[1] != last.value["id"]]
    told_of = [p.detail for p in check(history).problems if p.kind == LOST]
    assert any(last.value["id"] in detail for detail in told_of), "it was taken out of the final state"
