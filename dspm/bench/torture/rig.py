"""The cluster under torture and what is known of it: processes, sets, disks, links; and taking all of it away."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dspm.bench.torture import disks
from dspm.bench.torture.links import Links
from dspm.errors import DspmError, UnavailableError, UsageError
from dspm.netram import arenas, config
from dspm.netram.cluster import Asked, down, up
from dspm.netram.layout import Layout, State
from dspm.netram.messages import DatasetEntry, GroupStatus
from dspm.netram.netns import CLIENTS, Network
from dspm.netram.process import Process
from dspm.netram.status import Survey, is_degraded

POLL_S = 0.02
ANSWER_S = 1.0
GONE_S = 20.0
AGAIN_S = 1.0


def wait(true: Callable[[], bool], seconds: float, pause: float = POLL_S) -> bool:
    """Waits until it holds; False if it does not in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


class Rig:
    """A cluster of `dspm up` in a directory that is its own."""

    def __init__(self, directory: Path, nodes: int, memory: str, apart: bool) -> None:
        """`apart`: in network namespaces, with disks of limited size. Needs root."""
        self.directory = directory.absolute()
        self.apart = apart
        self.links: Links | None = None
        self._layout = Layout(self.directory)
        self._asked = Asked(nodes, {"memory": memory, "copies": "2"}, apart)

    def start(self) -> None:
        """Makes the cluster anew."""
        self.remove()
        up(self.directory, self._asked)
        if self.apart:
            down(self.directory)
            for node in self.state.nodes:
                disks.mount(Path(node.data_dir))
            self.mend()
        if (network := self.state.network) is not None:
            self.links = Links(network)

    def mend(self) -> None:
        """Ends all harm: what is stopped goes on, links hold, disks have room, what is missing is started."""
        self.let_go()
        if self.links is not None:
            self.links.heal()
        for node in self.state.nodes:
            disks.free(Path(node.data_dir))
        try:
            up(self.directory, Asked(None, {}))
        except UnavailableError:  # all of it was let go just now
            time.sleep(AGAIN_S)
            up(self.directory, Asked(None, {}))

    def remove(self) -> None:
        """Takes away what this or an earlier run left, and nothing else."""
        if not self.directory.exists():
            return
        if self._layout.read_state() is None:
            if any(self.directory.iterdir()):
                raise UsageError(f"{self.directory} is there and holds no cluster", "give another --directory")
        else:
            self.let_go()
            down(self.directory)
            disks.unmount_below(self.directory)
        arenas.clear(self.directory)
        shutil.rmtree(self.directory)

    def stop(self) -> None:
        """Ends all processes; logs and data stay, for those who want to look."""
        if self._layout.read_state() is not None:
            self.let_go()
            down(self.directory)

    @property
    def state(self) -> State:
        """What `up` wrote down."""
        state = self._layout.read_state()
        if state is None:
            raise DspmError(f"the cluster in {self.directory} is gone", "somebody removed it; run again")
        return state

    @property
    def config_path(self) -> Path:
        """The configuration for clients."""
        return self._layout.config

    @property
    def nodes(self) -> list[str]:
        """The nodes' names."""
        return [n.name for n in self.state.nodes]

    @property
    def clients(self) -> list[str]:
        """Hosts for client processes; on loopback they are only names."""
        return list(CLIENTS)

    @property
    def network(self) -> Network | None:
        """The namespaces, if there are any."""
        return self.state.network

    def process(self, name: str) -> Process:
        """The process of a node, or of the registry."""
        state = self.state
        return next((n.process for n in state.nodes if n.name == name), state.registry.process)

    def signal(self, name: str, number: int) -> None:
        """Sends a signal to a node or to the registry, if it runs; after SIGKILL waits until it is gone."""
        process = self.process(name)
        if not process.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if number == signal.SIGKILL and not wait(lambda: not process.is_running, GONE_S, 0.002):
            raise DspmError(f"SIGKILL did not end {name}, process {process.pid}, within {GONE_S:g} s", "see dmesg")

    def let_go(self) -> None:
        """SIGCONT for everything."""
        for p in self.state.processes():
            if p.is_running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(p.pid, signal.SIGCONT)

    def data_dir(self, node: str) -> Path:
        """Where a node's files are."""
        return next(Path(n.data_dir) for n in self.state.nodes if n.name == node)

    def arena(self, node: str) -> Path:
        """A node's memory."""
        return next(Path(n.arena_file) for n in self.state.nodes if n.name == node)

    def survey(self) -> Survey:
        """A look at the cluster.

        Raises:
            UnavailableError: no node answers.
        """
        return Survey(config.load_file(self.config_path), ANSWER_S)

    def members(self, database: str) -> list[str]:
        """The nodes that hold a database, the primary first.

        Raises:
            UnavailableError: nobody says so.
        """
        with self.survey() as survey:
            for page in survey.pages():
                for d in survey.datasets(page):
                    if d["name"] == database and d["primary"]:
                        return [d["primary"], *d["backups"]]
        raise UnavailableError(f"no node knows where {database} is", "see `dspm status`")

    def group(self, database: str, node: str) -> tuple[DatasetEntry, GroupStatus] | None:
        """What a node says of the database's group; None if it says nothing."""
        with self.survey() as survey:
            for page in survey.pages(lambda d: d.name == database):
                for d in page.datasets:
                    found = page.groups.get(node, {}).get(d.group)
                    if d.name == database and found is not None:
                        return d, found
        return None

    def checksum_errors(self, node: str) -> int:
        """How much damage the node's process has found so far; 0 while it does not answer."""
        with self.survey() as survey:
            return next((int(n["checksum_errors"]) for n in survey.head()["nodes"] if n["name"] == node), 0)

    def why_not_whole(self) -> str:
        """What a second fault would meet that is not whole yet; empty when all copies are there."""
        try:
            with self.survey() as survey:
                away = [f"{n['name']} {n['state']}" for n in survey.head()["nodes"] if n["state"] != "serving"]
                found = [d for page in survey.pages() for d in survey.datasets(page)]
        except DspmError as e:
            return str(e)
        bad = [d for d in found if is_degraded([d]) or d["copies_now"] < d["copies"] or d["joining"]]
        said = [f"{d['name']} {d['state']} {d['copies_now']}/{d['copies']} joining {d['joining']}" for d in bad]
        return "; ".join(away + said)
