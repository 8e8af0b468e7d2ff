"""What operators get wrong with real nodes: one sentence, a hint, the contract's exit status, and nothing changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .cluster import BIN, Cluster, clean_environment, command
from .conftest import Clusters


@pytest.fixture(scope="module")
def one(clusters: Clusters) -> Cluster:
    return clusters(1, copies=1, memory="32MiB")


def a_node(cluster: Cluster, data: Path, arena: Path) -> subprocess.CompletedProcess[str]:
    """`dspm node` that is expected not to serve."""
    where = ("--data-dir", data, "--arena", arena, "--memory", "16MiB")
    arguments = [str(BIN), "node", "--config", cluster.config, "--name", "x", *map(str, where)]
    return subprocess.run(arguments, env=clean_environment(), capture_output=True, text=True, timeout=60)


def complaint(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status and done.stdout == "" and "Traceback" not in done.stderr, done
    error, hint = done.stderr.strip().splitlines()
    assert error.startswith("dspm: error: ") and hint.startswith("hint: ")
    return done.stderr


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_the_directory_of_another_clusters_node_is_refused(one: Cluster, clusters: Clusters, tmp_path: Path) -> None:
    """Guards the registry: the newer view in there would end all its decisions."""
    other = clusters(1, copies=1, memory="32MiB")
    foreign = tmp_path / "foreign"
    shutil.copytree(next(n["data_dir"] for n in other.info["nodes"]), foreign)
    before, nodes = contents(foreign), one.status()["nodes"]
    said = complaint(a_node(one, foreign, tmp_path / "arena"), 2)
    assert f"the directory {foreign} is of a node of the cluster" in said and "--data-dir of its own" in said
    assert contents(foreign) == before and not (tmp_path / "arena").exists()
    assert [n["name"] for n in one.status()["nodes"]] == [n["name"] for n in nodes]


def test_the_memory_of_another_node_is_not_taken(one: Cluster, tmp_path: Path) -> None:
    """Guards a stopped node: what is in its arena may be all that is left of its commits."""
    arena = tmp_path / "arena"
    with arena.open("wb") as copy:
        copy.write(one.arena(one.nodes[0]).read_bytes()[: 16 << 20])
    before = arena.read_bytes()
    for _ in range(2):
        said = complaint(a_node(one, tmp_path / "new", arena), 2)
        assert f"{arena} is the memory of store " in said and "delete the file" in said
    assert arena.read_bytes() == before


def test_a_key_that_everybody_can_read_is_refused(one: Cluster, tmp_path: Path) -> None:
    config, key = tmp_path / "c.toml", tmp_path / "key"
    key.write_bytes((one.directory / "cluster.key").read_bytes())
    config.write_text(Path(one.config).read_text().replace(str(one.directory / "cluster.key"), str(key)))
    for mode in (0o644, 0o604, 0o602):
        key.chmod(mode)
        for arguments in (["status"], ["ls"], ["rm", "x"], ["switchover", "x"], ["recover"], ["bench", "page"]):
            said = complaint(command(*arguments, DSPM_CONFIG=str(config)), 2)
            assert f"the key file {key} is open to everybody on this machine (mode {mode:03o})" in said
            assert "chmod 600" in said
        said = complaint(command("registry", "--dir", tmp_path / "r", "--config", config), 2)
        assert "open to everybody" in said and not (tmp_path / "r").exists()
        where = ("--data-dir", tmp_path / "d", "--config", config)
        said = complaint(command("node", "--name", "x", *where), 2)
        assert "open to everybody" in said and not (tmp_path / "d").exists()
    for mode in (0o600, 0o400, 0o640):
        key.chmod(mode)
        assert command("status", DSPM_CONFIG=str(config)).returncode == 0


def test_the_only_node_is_not_drained(one: Cluster) -> None:
    script = "import dspm; dspm.connect('a.db').execute('CREATE TABLE t(a)')"
    python = str(BIN.parent / "python")
    subprocess.run([python, "-c", script], env={**clean_environment(), "DSPM_CONFIG": one.config}, check=True)
    before = one.status()["sets"]
    said = complaint(one.run("node", "drain", "n1"), 3)
    assert "no node can take over from n1" in said and "nothing was changed" in said
    assert "is the only complete member" in complaint(one.run("switchover", "a.db"), 1)
    assert "there is no node named 'n9'" in complaint(one.run("switchover", "a.db", "n9"), 1)
    assert one.status()["sets"] == before


def test_more_copies_than_machines_is_shown(clusters: Clusters) -> None:
    """Two nodes of one machine hold both copies where there is no other machine, and `status` says so."""
    cluster = clusters(2, memory="32MiB")
    script = "import dspm; dspm.connect('a.db').execute('CREATE TABLE t(a)')"
    python = str(BIN.parent / "python")
    subprocess.run([python, "-c", script], env={**clean_environment(), "DSPM_CONFIG": cluster.config}, check=True)
    assert cluster.status()["sets"][0]["one_machine"] == []
    cluster.down()
    state = cluster.directory / "state.json"
    told = json.loads(state.read_text())
    for n in told["nodes"]:
        n["machine"] = "rack-7"
    state.write_text(json.dumps(told))
    cluster.up()
    (s,) = cluster.status()["sets"]
    assert s["one_machine"] == ["n1", "n2"]
    assert f"replica set {s['set']}: n1 and n2 are on one machine" in cluster.run("status").stdout
