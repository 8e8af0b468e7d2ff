"""`dspm up --netns`: hosts of their own for nodes, registry and clients, and nothing left of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .child import Children
from .cluster import BIN, Cluster, clean_environment, command, eventually
from .netns import ip, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def network() -> set[str]:
    """Devices, namespaces and addresses of this machine, but for what other tests make and remove meanwhile."""
    devices = [link["ifname"] for link in json.loads(ip("-j", "link").stdout)]
    return {d for d in devices if d.startswith("d") and d.endswith(("br", "r", "n1", "n2", "c1", "c2", "c3"))}


def own(info: dict[str, Any]) -> set[str]:
    """Namespaces of this cluster that are there."""
    wanted = {h["namespace"] for h in info["netns"]["hosts"]}
    return wanted & set(os.listdir("/run/netns"))


class Apart(Cluster):
    """A cluster in namespaces, with its programs on the first client's host."""

    def up(self) -> None:
        self._first = [*self._first, "--netns"] if self._first else []
        super().up()

    def on(self, client: str) -> None:
        """Programs run there from now on."""
        host = next(h for h in self.info["netns"]["clients"] if h["name"] == client)
        self.prefix = ("ip", "netns", "exec", host["namespace"])


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    cluster = Apart(tmp_path / "c", 2, {"memory": "16MiB"})
    yield cluster
    cluster.prefix = ()
    cluster.end()


def test_hosts_are_made_used_mended_and_removed(apart: Apart, children: Children) -> None:
    """Guards what users see: `status` from outside, programs on client hosts, and `down` that leaves nothing."""
    apart.up()
    info = apart.info
    assert len(own(info)) == len(info["netns"]["hosts"]) == 6
    addresses = {h["name"]: h["address"] for h in info["netns"]["hosts"]}
    assert [n["address"].split(":")[0] for n in info["nodes"]] == [addresses["n1"], addresses["n2"]]
    assert [n["state"] for n in apart.status()["nodes"]] == ["serving", "serving"], "from the machine itself"
    apart.on("c1")
    children.session(apart, "x.db").sql("CREATE TABLE t AS SELECT 7 AS v")
    apart.on("c2")
    reader = children.session(apart, "x.db")
    assert reader.one("SELECT v FROM t") == 7
    apart.prefix = ()
    apart.kill(apart.pid("n1"))
    cable = next(d for d in network() if d == info["netns"]["bridge"].removesuffix("br") + "n2")
    ip("link", "del", cable)
    apart.up()
    assert [n["state"] for n in apart.status()["nodes"]] == ["serving", "serving"], "what was missing is there"
    assert {k: v for k, v in apart.info["netns"].items()} == info["netns"]
    apart.down()
    assert own(info) == set() and info["netns"]["bridge"] not in network()
    apart.up()
    apart.on("c3")
    assert children.session(apart, "x.db").one("SELECT v FROM t") == 7


@pytest.mark.parametrize("then", ["down", "up"])
def test_an_up_that_was_killed_leaves_nothing_for_good(apart: Apart, then: str) -> None:
    """Guards against namespaces that nobody knows of: `down`, or the next `up`, finds what a killed `up` had made."""
    argv = [str(BIN), "up", "--dir", str(apart.directory), "--nodes", "2", "--memory", "16MiB", "--netns"]
    p = subprocess.Popen(argv, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = apart.directory / "state.json"
    eventually("the first namespace is there", lambda: bool(made(state)) or p.poll() is not None, pause=0.001)
    p.send_signal(signal.SIGKILL)
    p.wait(20)
    assert made(state)
    if then == "up":
        apart.up()
        assert [n["state"] for n in apart.status()["nodes"]] == ["serving", "serving"]
    done = command("down", "--dir", apart.directory)
    assert done.returncode == 0, done.stderr
    assert not made(state)


def made(state: Path) -> list[str]:
    """Namespaces of the cluster that the state names."""
    try:
        tag = json.loads(state.read_text())["network"]["tag"]
    except (OSError, ValueError, KeyError):
        return []
    return [name for name in os.listdir("/run/netns") if name.startswith(f"dspm-{tag}-")]


def test_a_cluster_on_loopback_gets_no_namespaces(apart: Apart) -> None:
    """Guards against a cluster half of which moves."""
    Cluster.up(apart)
    done = command("up", "--dir", apart.directory, "--netns")
    assert done.returncode == 2 and "has no network namespaces" in done.stderr


def test_no_command_ip(tmp_path: Path) -> None:
    """Guards the message where iproute2 is missing; nothing is made."""
    done = command("up", "--dir", tmp_path / "c", "--netns", PATH=str(tmp_path))
    assert done.returncode == 1 and "need the command `ip`, which is missing" in done.stderr
    assert "hint: run it as root, with iproute2 installed" in done.stderr
    assert not (tmp_path / "c").exists()


def test_not_root(tmp_path: Path) -> None:
    """Guards the message for everybody else; nothing is made."""
    argv = [str(BIN), "up", "--dir", str(tmp_path / "c"), "--netns"]
    code = "import os, sys; os.geteuid = lambda: 1000; from dspm.cli.main import run; sys.exit(run(sys.argv[1:]))"
    argv = [str(BIN.parent / "python"), "-c", code, *argv[1:]]
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "dspm: error: network namespaces need root" in done.stderr
    assert not (tmp_path / "c").exists()
