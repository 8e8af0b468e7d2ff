"""`dspm up` and `dspm down`: what is missing is started, as it was; a failure leaves nothing. Nodes are stand-ins."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from dspm.errors import DspmError, UsageError
from dspm.netram.cluster import Asked, down, up
from dspm.netram.layout import Layout
from dspm.netram.node import arena_path
from dspm.netram.process import identify

SMALL = {"memory": "16MiB"}


def start(directory: Path, nodes: int | None = 2, **settings: str) -> dict[str, Any]:
    return up(directory, Asked(nodes, {**SMALL, **settings}))


def running(directory: Path) -> set[int]:
    state = Layout(directory).read_state()
    return {p.pid for p in state.processes() if p.is_running} if state else set()


def test_up_is_idempotent_and_down_leaves_none(stand_in: Path, directory: Path, dspm: Run) -> None:
    first = up(directory, Asked(2, {**SMALL, "cache.size": "16MiB"}))
    assert [n["name"] for n in first["nodes"]] == ["n1", "n2"]
    assert 'cache.size = "16MiB"' in Path(first["config"]).read_text()
    assert stat.S_IMODE(os.stat(directory / "cluster.key").st_mode) == 0o600
    assert up(directory, Asked(None, {})) == first
    assert up(directory, Asked(2, {"memory": "16777216", "copies": "2"})) == first
    shown = json.loads(dspm("status", "--json", env={"DSPM_CONFIG": first["config"]}).stdout)
    assert [n["state"] for n in shown["nodes"]] == ["serving", "serving"]
    assert [n["machine"] for n in shown["nodes"]] == ["n1@local", "n2@local"]
    assert shown["datasets"] == [] and shown["degraded"] is False
    assert len(running(directory)) == 3
    assert down(directory) is True
    assert running(directory) == set()
    assert down(directory) is False
    assert up(directory, Asked(None, {}))["nodes"][0]["address"] == first["nodes"][0]["address"]


@pytest.mark.parametrize("victims", [["registry"], ["n1"], ["n2", "registry"], ["n1", "n2", "registry"]])
def test_what_is_missing_is_started_as_it_was(stand_in: Path, directory: Path, victims: list[str]) -> None:
    first = start(directory)
    pids = {n["name"]: n["pid"] for n in first["nodes"]} | {"registry": first["registry"]["pid"]}
    for name in victims:
        os.kill(pids[name], signal.SIGKILL)
    second = up(directory, Asked(None, {}))
    after = {n["name"]: n["pid"] for n in second["nodes"]} | {"registry": second["registry"]["pid"]}
    assert {k for k in pids if pids[k] != after[k]} == set(victims)
    for info in (first, second):
        info["registry"].pop("pid")
        for n in info["nodes"]:
            n.pop("pid")
    assert first == second


def test_other_wishes_for_a_cluster_that_exists(stand_in: Path, directory: Path) -> None:
    start(directory)
    with pytest.raises(UsageError, match="has 2 nodes, not 3"):
        up(directory, Asked(3, {}))
    with pytest.raises(UsageError, match="has memory = 16MiB, not 32MiB"):
        up(directory, Asked(None, {"memory": "32MiB"}))
    assert len(running(directory)) == 3


def test_a_node_that_fails_leaves_nothing(stand_in: Path, directory: Path) -> None:
    stand_in.write_text('#!/bin/sh\necho "dspm: error: no luck\nhint: try luck" >&2; exit 4\n')
    with pytest.raises(DspmError, match="node n1: no luck") as e:
        start(directory)
    assert e.value.exit_code == 4 and e.value.hint == "try luck"
    assert not directory.exists()
    assert not arena_path(directory, "n1").exists()


def test_a_directory_that_was_there_keeps_what_it_had(stand_in: Path, directory: Path) -> None:
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    directory.mkdir()
    (directory / "mine").write_text("x")
    with pytest.raises(DspmError):
        start(directory)
    assert [p.name for p in directory.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["log/mine", "nodes/mine", "run/mine", "registry/mine", "cluster.key", "dspm.toml"])
def test_what_others_made_is_neither_used_nor_removed(stand_in: Path, directory: Path, name: str) -> None:
    """A project's own `log`, or the key of a cluster of `dspm node`: `up` would write over it, or remove it."""
    mine = directory / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    before = sorted(directory.rglob("*"))
    with pytest.raises(UsageError, match="is there, but no cluster that `dspm up` made"):
        start(directory)
    assert sorted(directory.rglob("*")) == before and mine.read_text() == "mine"


def test_a_first_up_that_was_killed_is_done_again(stand_in: Path, directory: Path) -> None:
    """Killed at whatever instant: the state is there from the first file on and says that the rest is ours."""
    start(directory)
    down(directory)
    state = Layout(directory).read_state()
    assert state is not None
    state.complete = False
    Layout(directory).write_state(state)
    for missing in ("dspm.toml", "cluster.key"):
        (directory / missing).unlink()
        assert len(start(directory)["nodes"]) == 2
        down(directory)
        state.complete = False
        Layout(directory).write_state(state)


def test_two_calls_make_one_cluster(stand_in: Path, directory: Path) -> None:
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(start(directory))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 2 and results[0] == results[1]


def test_daemons_keep_none_of_the_callers_descriptors(stand_in: Path, directory: Path, tmp_path: Path) -> None:
    with open(tmp_path / "mine", "w") as mine:
        os.set_inheritable(mine.fileno(), True)
        info = start(directory)
        for pid in [n["pid"] for n in info["nodes"]] + [info["registry"]["pid"]]:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            assert str(tmp_path / "mine") not in links
            assert os.getsid(pid) == pid


def test_an_interrupted_first_up_leaves_nothing(stand_in: Path, directory: Path) -> None:
    stand_in.write_text("#!/bin/sh\nexec sleep 600\n")
    code = (
        "import dspm._native, pathlib, sys; dspm._native.node_binary = lambda: pathlib.Path(sys.argv[1]);"
        "from dspm.cli.main import run; sys.exit(run(['up', '--dir', sys.argv[2], '--memory', '16MiB']))"
    )
    p = subprocess.Popen([sys.executable, "-c", code, str(stand_in), str(directory)], stderr=subprocess.PIPE, text=True)
    pids: set[int] = set()
    while not pids and p.poll() is None:
        pids = running(directory)
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "Traceback" not in err
    assert not directory.exists()
    assert not any(identify(pid).is_running for pid in pids)


def test_arenas_of_a_deleted_directory_are_removed(stand_in: Path, directory: Path, tmp_path: Path) -> None:
    import shutil

    from dspm.netram import arenas

    info = start(directory)
    arena = Path(info["nodes"][0]["arena_file"])
    down(directory)
    assert arena.exists()
    arenas.remove_orphans()
    assert arena.exists()
    shutil.rmtree(directory)
    arenas.remove_orphans()
    assert not arena.exists()
