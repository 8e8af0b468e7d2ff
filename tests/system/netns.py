"""Network namespaces: hosts of their own on this machine, joined by links that can be cut."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dspm.bench.torture.links import NOBODY
from dspm.netram.netns import why_not

from .cluster import BIN, Cluster, clean_environment, eventually

__all__ = ["HandMade", "Host", "Link", "ip", "why_not"]


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `ip`."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check, timeout=20)


class Host:
    """A namespace with its own loopback."""

    def __init__(self, tag: str) -> None:
        self.name = f"dspm-{os.getpid()}-{tag}"
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What starts a command inside."""
        return ("ip", "netns", "exec", self.name)

    def end(self) -> None:
        """Removes it, and kills what still runs inside."""
        pids = ip("netns", "pids", self.name, check=False).stdout.split()
        for pid in pids:
            subprocess.run(["kill", "-KILL", pid], check=False, capture_output=True)
        ip("netns", "del", self.name, check=False)


class Link:
    """A cable between two hosts: 10.213.N.1 and 10.213.N.2."""

    def __init__(self, left: Host, right: Host, number: int) -> None:
        self.left, self.right = left, right
        self.left_ip, self.right_ip = f"10.213.{number}.1", f"10.213.{number}.2"
        self._left_if, self._right_if = f"l{number}", f"r{number}"
        ends = (self._left_if, "netns", left.name), (self._right_if, "netns", right.name)
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host, device, address in (
            (left, self._left_if, self.left_ip),
            (right, self._right_if, self.right_ip),
        ):
            ip("-n", host.name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", host.name, "link", "set", device, "up")

    def cut(self, way: str) -> None:
        """`both`: nothing passes. `to-left`, `to-right`: nothing passes that way."""
        if way == "both":
            ip("-n", self.right.name, "link", "set", self._right_if, "down")
        else:
            self._neighbour(way, "replace", "lladdr", NOBODY, "nud", "permanent")

    def heal(self, way: str) -> None:
        """Undoes `cut`."""
        if way == "both":
            ip("-n", self.right.name, "link", "set", self._right_if, "up")
        else:
            self._neighbour(way, "del")

    def _neighbour(self, way: str, do: str, *rest: str) -> None:
        """The sender believes that the other end has another hardware address: what it sends is dropped there."""
        sender = (
            (self.right, self._right_if, self.left_ip)
            if way == "to-left"
            else (
                self.left,
                self._left_if,
                self.right_ip,
            )
        )
        host, device, address = sender
        ip("-n", host.name, "neigh", do, address, *rest, "dev", device)


class HandMade(Cluster):
    """A cluster of `dspm registry` and `dspm node`, each on a host of its own choice."""

    def __init__(self, directory: Path, registry: tuple[Host, str], nodes: list[tuple[Host, str]]) -> None:
        super().__init__(directory)
        directory.mkdir()
        (directory / "key").write_text("k" * 32)
        (directory / "key").chmod(0o600)
        self._processes: list[subprocess.Popen[str]] = []
        addresses = [f"{address}:{7401 + i}" for i, (_, address) in enumerate(nodes)]
        config = directory / "dspm.toml"
        config.write_text(
            f'cluster = "hand-made-{os.getpid()}"\nkey_file = "{directory / "key"}"\nmemory = "64MiB"\n'
            f'registry = "http://{registry[1]}:7400"\nnodes = {addresses!r}\n'.replace("'", '"')
        )
        self.info["config"] = str(config)
        try:
            self._start("registry", registry[0], "--dir", directory / "r", "--listen", f"{registry[1]}:7400")
            for i, (host, _) in enumerate(nodes):
                name = f"n{i + 1}"
                options = ["--name", name, "--data-dir", directory / name, "--arena", self._arena(name)]
                self._start("node", host, *options, "--listen", addresses[i], "--machine", name)
                self.info["nodes"].append({"name": name, "pid": self._processes[-1].pid})
            self.prefix = nodes[0][0].prefix
            eventually("all nodes serve", lambda: self._serving() == len(nodes), pause=0.1)
        except BaseException:
            self.end()
            raise

    def _arena(self, name: str) -> Path:
        return Path(f"/dev/shm/dspm-test-{os.getpid()}-{self.directory.parent.name}-{name}.arena")

    def _start(self, what: str, host: Host, *options: object) -> None:
        argv = [*host.prefix, str(BIN), what, "--config", self.config, *map(str, options), "--insecure"]
        with open(self.directory / f"{len(self._processes)}.log", "w") as log:
            self._processes.append(
                subprocess.Popen(
                    argv, stdout=log, stderr=log, text=True, env=clean_environment(), start_new_session=True
                )
            )

    def _serving(self) -> int:
        done = self.run("status", "--json")
        if done.returncode:
            return 0
        # One that the registry has not heard of yet is shown without its machine.
        return sum(n["state"] == "serving" and bool(n["machine"]) for n in self.status()["nodes"])

    def mend(self) -> None:
        """Its processes are not touched by the tests."""

    def end(self) -> None:
        """Kills all of it and removes its memory."""
        for p in self._processes:
            p.kill()
            p.wait(20)
        for i in range(len(self._processes)):
            self._arena(f"n{i}").unlink(missing_ok=True)
