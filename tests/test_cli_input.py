"""Wrong input gets one sentence, a hint and the contract's exit status; never a traceback, nothing half-created."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from conftest import Run, write_key

from dspm.netram.config import load

CASES = [
    (["frobnicate"], 2),
    (["up"], 2),
    (["up", "--dir"], 2),
    (["up", "--dir", ""], 2),
    (["down", "--dir", ""], 2),
    (["fsck", "--dir", ""], 2),
    (["fsck", ""], 2),
    (["log", "dump", ""], 2),
    (["node", "--name", "n", "--data-dir", "", "--config", "{tmp}/one.toml"], 2),
    (["node", "--name", "bad name", "--data-dir", "{tmp}/n", "--config", "{tmp}/one.toml"], 2),
    (["registry", "--dir=", "--config", "{tmp}/one.toml"], 2),
    (["ls", "orders.db"], 2),
    (["export", "x.db", "{tmp}/x", "--as-of", "-30s"], 3),
    (["bench", "page", "--rounds", "0"], 2),
    (["up", "--dir", "{tmp}/d", "--nodes", "many"], 2),
    (["up", "--dir", "{tmp}/d", "--nodes", "0"], 2),
    (["up", "--dir", "{tmp}/d", "--nodes", "1", "--copies", "3"], 2),
    (["up", "--dir", "{tmp}/d", "--memory", "900TiB"], 2),
    (["up", "--dir", "{tmp}/d", "--memory", "lots"], 2),
    (["up", "--dir", "{tmp}/d", "--durability", "maybe"], 2),
    (["up", "--dir", "{tmp}/d", "--durability", "pm"], 2),
    (["up", "--dir", "{tmp}/d", "--set", "lease"], 2),
    (["up", "--dir", "{tmp}/d", "--set", "leese=1s"], 2),
    (["up", "--dir", "{tmp}/d", "--set", "nodes=3"], 2),
    (["up", "--dir", "{tmp}/d", "--set", "min_copies=5"], 2),
    (["up", "--dir", "/proc/nowhere/x"], 1),
    (["up", "--dir", "{tmp}/file"], 1),
    (["down", "--dir", "{tmp}/d"], 1),
    (["status"], 3),
    (["ls", "--json"], 3),
    (["rm", "x.db"], 3),
    (["ycsb", "load"], 3),
    (["ycsb", "run"], 3),
    (["rm"], 2),
    (["switchover"], 2),
    (["switchover", "x.db"], 3),
    (["node", "drain"], 2),
    (["node", "drain", "n1"], 3),
    (["node", "remove"], 2),
    (["node", "remove", "n1"], 3),
    (["recover"], 3),
    (["recover", "--accept-loss", "--yes"], 3),
    (["recover", "--accept"], 2),
    (["config", "show", "--config", "{tmp}/none.toml"], 2),
    (["path", "elsewhere"], 2),
    (["registry", "--dir", "{tmp}/r", "--config", "{tmp}/one.toml", "--listen", "0.0.0.0:0"], 2),
    (["registry", "--dir", "{tmp}/r", "--config", "{tmp}/one.toml", "--listen", "nowhere"], 2),
    (["node", "--name", "n", "--data-dir", "{tmp}/n", "--config", "{tmp}/one.toml", "--listen", "0.0.0.0:0"], 2),
]


@pytest.mark.parametrize(("arguments", "status"), CASES, ids=lambda v: " ".join(v) if isinstance(v, list) else str(v))
def test_wrong_input(dspm: Run, tmp_path: Path, arguments: list[str], status: int) -> None:
    (tmp_path / "file").write_text("")
    write_key(tmp_path / "key", "k")
    (tmp_path / "one.toml").write_text('key_file = "key"\nnodes = ["127.0.0.1:1"]\nregistry = "http://127.0.0.1:1"\n')
    before = sorted(tmp_path.rglob("*"))
    r = dspm(*(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert r.returncode == status, r.stderr
    lines = r.stderr.splitlines()
    assert lines[0].startswith("dspm: error: ") and lines[1].startswith("hint: ") and len(lines) == 2, r.stderr
    assert r.stdout == "" and "Traceback" not in r.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[cache]\nsize = "many"\n', "line 2: cache.size: expected a size"),
        ('durabilty = "disk"\n', 'line 1: unknown key "durabilty"; did you mean "durability"?'),
        ("copies = 1\nmin_copies = 2\n", "line 2: min_copies = 2"),
        ("copies = \n", "line 1: not TOML"),
    ],
)
def test_config_errors_name_file_and_line(dspm: Run, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    r = dspm("status", env={"DSPM_CONFIG": str(path)})
    assert r.returncode == 2
    assert f"bad.toml, {said}" in r.stderr


def test_a_config_that_is_missing(dspm: Run, tmp_path: Path) -> None:
    r = dspm("status", env={"DSPM_CONFIG": str(tmp_path / "gone.toml")})
    assert r.returncode == 2 and "gone.toml" in r.stderr


def test_unknown_variables_are_one_warning(dspm: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    r = dspm("config", "show", "--json", env={"DSPM_CONFIG": str(path), "DSPM_CASH": "1", "DSPM_LOG": "on"})
    assert r.returncode == 0 and r.stderr == "dspm: warning: unknown environment variable: DSPM_CASH\n"


def test_the_keys_can_be_looked_at_without_a_cluster(dspm: Run) -> None:
    r = dspm("config", "show", "--json", env={"DSPM_HISTORY": "7m"})
    shown = json.loads(r.stdout)
    assert r.returncode == 0 and r.stderr.startswith("dspm: warning: no cluster is configured")
    assert shown["path"] is None and shown["settings"]["history"]["value"] == "7m"
    assert shown["settings"]["copies"] == {"value": "2", "origin": "default"}


def test_a_file_that_is_named_and_not_there_gets_a_hint_that_helps(dspm: Run) -> None:
    r = dspm("ls", env={"DSPM_CONFIG": "/nonexistent/dspm.toml"})
    assert r.returncode == 2 and "hint: `dspm up --dir D` starts a cluster" in r.stderr


def test_the_extension_is_a_file(dspm: Run) -> None:
    assert Path(dspm("path", "sqlite").stdout.strip()).is_file()


@pytest.mark.parametrize("option", ["--listen", "--metrics"])
def test_a_port_in_use_is_named_with_who_may_have_it(dspm: Run, tmp_path: Path, option: str) -> None:
    write_key(tmp_path / "key", "k")
    (tmp_path / "one.toml").write_text('key_file = "key"\nregistry = "http://127.0.0.1:1"\nmemory = "16MiB"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        common = ["--config", tmp_path / "one.toml", option, f"127.0.0.1:{port}"]
        node = dspm("node", "--name", "n", "--data-dir", tmp_path / "n", "--arena", tmp_path / "a", *common)
        assert node.returncode == 1, node.stderr
        error, hint = node.stderr.splitlines()[-2:]
        assert error.startswith(f"dspm: error: cannot listen on 127.0.0.1:{port}")
        assert f"'sport = :{port}'" in hint and "dspm down" in hint and f"`dspm node {option}`" in hint
        if option == "--listen":
            registry = dspm("registry", "--dir", tmp_path / "r", *common)
            assert registry.returncode == 1 and f"listen on 127.0.0.1:{port}" in registry.stderr
            assert f"'sport = :{port}'" in registry.stderr and "`dspm registry --listen`" in registry.stderr


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("true", True), ("false", False)])
def test_a_switch_takes_what_is_documented(dspm: Run, text: str, value: bool) -> None:
    r = dspm("config", "show", "--json", env={"DSPM_CACHE_PREFETCH": text, "DSPM_CONFIG": "/dev/null"})
    assert r.returncode == 0, r.stderr
    wrong = dspm("config", "show", env={"DSPM_CACHE_PREFETCH": text.upper(), "DSPM_CONFIG": "/dev/null"})
    assert wrong.returncode == 2 and 'expected on or off (true and false are the same), found "' in wrong.stderr
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("DSPM_CACHE_PREFETCH", text)
        assert load(Path("/dev/null")).cache_prefetch is value


def test_a_key_that_does_not_fit_is_named_by_its_file(dspm: Run, tmp_path: Path, directory: Path) -> None:
    up = dspm("up", "--dir", directory, "--nodes", "1", "--copies", "1", "--memory", "16MiB", "--json")
    assert up.returncode == 0, up.stderr
    try:
        other = tmp_path / "other.key"
        write_key(other, "of another cluster")
        wrong = tmp_path / "wrong.toml"
        text = Path(json.loads(up.stdout)["config"]).read_text()
        wrong.write_text(text.replace(str(directory / "cluster.key"), str(other)))
        for command in (["ls"], ["status"], ["bench", "page"], ["export", "a.db", tmp_path / "a"]):
            r = dspm(*command, env={"DSPM_CONFIG": str(wrong)})
            assert r.returncode == 1, r.stderr
            assert f"the key in {other} does not fit this cluster" in r.stderr and "key_file" in r.stderr
            assert "of another cluster" not in r.stderr
    finally:
        assert dspm("down", "--dir", directory).returncode == 0
