"""Cuts in the network of `dspm up --netns`.

A cut between two hosts is a false entry in the sender's table of neighbours: what it sends goes to a hardware address
that nobody has, and is dropped without a word, as by a broken switch. So each way can be cut alone.
"""

from __future__ import annotations

import contextlib

from dspm.errors import DspmError
from dspm.netram.netns import DEVICE, Network, ip

NOBODY = "02:00:00:00:00:99"


class Links:
    """What is cut, and healing all of it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._cut: set[tuple[str, str]] = set()
        self._off: set[str] = set()

    def cut(self, sender: str, receiver: str) -> None:
        """Nothing that one host sends to the other arrives."""
        entry = f"neigh replace {self._network.address(receiver)} lladdr {NOBODY} nud permanent dev {DEVICE}"
        self._cut.add((sender, receiver))
        ip("-n", self._network.namespace(sender), lines=[entry])

    def unplug(self, host: str) -> None:
        """The host's cable is out."""
        self._off.add(host)
        ip("link", "set", self._network.port(host), "down")

    def heal(self) -> None:
        """All links hold again."""
        for sender, receiver in sorted(self._cut):
            with contextlib.suppress(DspmError):  # gone with its namespace
                ip(
                    "-n",
                    self._network.namespace(sender),
                    lines=[f"neigh del {self._network.address(receiver)} dev {DEVICE}"],
                )
        for host in sorted(self._off):
            ip("link", "set", self._network.port(host), "up")
        self._cut.clear()
        self._off.clear()
