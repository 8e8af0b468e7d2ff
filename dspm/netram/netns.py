"""Network namespaces for a cluster on one machine: each node, the registry and some clients on a host of their own.

    host            bridge BR: SUBNET.1, from where `dspm` reaches all of them
    registry        SUBNET.2        n1, n2, …       SUBNET.11, …        c1, c2, c3      SUBNET.101, …

Each host is a namespace whose `eth0` is one end of a cable (veth); the other end is a port of the bridge.

Invariants: every name is made of the directory's tag, and what is made was written down before (`state.json`), so that
what a killed `up` left is found and removed, and nothing else is; making is idempotent: it adds what is missing.
All of it needs root, and is gone after a reboot.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
from pathlib import Path

import msgspec

from dspm.errors import AccessError, DspmError

REGISTRY = "registry"
CLIENTS = ("c1", "c2", "c3")
DEVICE = "eth0"
"""A host's own end of its cable."""

REGISTRY_PORT, NODE_PORT, METRICS_PORT = 7400, 7401, 7402
_RANGE = "10.213"
_SPECIFIC = 16
_FIRST_NODE, _FIRST_CLIENT = 11, 101
_SECONDS = 30
_HINT = "run it as root, with iproute2 installed; without --netns all of it runs on loopback"


class Network(msgspec.Struct, frozen=True):
    """What is made, and how it is called. `subnet` is the first three numbers of all addresses."""

    tag: str
    subnet: str
    nodes: list[str]

    @property
    def bridge(self) -> str:
        """The bridge; its address is the machine's own."""
        return f"d{self.tag}br"

    @property
    def hosts(self) -> list[str]:
        """All hosts."""
        return [REGISTRY, *self.nodes, *CLIENTS]

    def namespace(self, host: str) -> str:
        """The host's namespace, for `ip netns exec`."""
        return f"dspm-{self.tag}-{host}"

    def port(self, host: str) -> str:
        """The bridge's end of the host's cable. Names of devices have at most 15 characters."""
        return f"d{self.tag}{'r' if host == REGISTRY else host}"

    def address(self, host: str) -> str:
        """The host's address."""
        if host == REGISTRY:
            return f"{self.subnet}.2"
        if host in CLIENTS:
            return f"{self.subnet}.{_FIRST_CLIENT + CLIENTS.index(host)}"
        return f"{self.subnet}.{_FIRST_NODE + self.nodes.index(host)}"

    def mac(self, address: str) -> str:
        """Hardware address of whoever has that address, also of a cable that is made again: others remember it."""
        return ":".join(["02", *(self.tag[i : i + 2] for i in range(0, 8, 2)), f"{int(address.split('.')[3]):02x}"])

    def inside(self, host: str) -> list[str]:
        """What starts a command on that host."""
        return ["ip", "netns", "exec", self.namespace(host)]


def ip(*arguments: str, lines: list[str] | None = None) -> str:
    """Runs `ip`, or many of its commands in one process; returns what it printed.

    Raises:
        DspmError: it is missing, or failed.
    """
    batch = [] if lines is None else ["-batch", "-"]
    command = ["ip", *arguments, *batch]
    text = None if lines is None else "".join(f"{line}\n" for line in lines)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_SECONDS)
    except FileNotFoundError:
        raise AccessError("network namespaces need the command `ip`, which is missing", _HINT) from None
    except subprocess.TimeoutExpired:
        raise DspmError(f"`{' '.join(command)[:80]}` did not end within {_SECONDS} s", "see dmesg") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
        what = " ".join(arguments) or (lines or [""])[0]
        raise DspmError(f"`ip {what[:80]}` failed: {said[:200]}", _HINT)
    return done.stdout


def why_not() -> str:
    """Why namespaces cannot be used here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"dspm-probe-{os.getpid()}"
    try:
        ip("netns", "add", probe)
        ip("netns", "del", probe)
    except DspmError as e:
        return str(e)
    return ""


def check() -> None:
    """Refuses where there can be no namespaces.

    Raises:
        AccessError: why, in one sentence.
    """
    if reason := why_not():
        raise AccessError(reason, _HINT)


def plan(tag: str, nodes: list[str]) -> Network:
    """Names and addresses for a new cluster: a range that nothing on this machine uses."""
    digest = hashlib.sha256(tag.encode()).digest()
    taken = _taken()
    for k in range(256):
        subnet = f"{_RANGE}.{(digest[0] + k) % 256}"
        if not any(ipaddress.ip_network(f"{subnet}.0/24").overlaps(t) for t in taken):
            return Network(tag[:8], subnet, nodes)
    raise DspmError(f"all of {_RANGE}.0.0/16 is in use on this machine", "take down clusters that are not needed")


def _taken() -> list[ipaddress.IPv4Network]:
    """What this machine has routes to. Those of whole providers and of tunnels for everything are in nobody's way."""
    routes = json.loads(ip("-j", "-4", "route", "show", "table", "all") or "[]")
    found = [r["dst"] for r in routes if r.get("dst", "default") != "default"]
    networks = [ipaddress.IPv4Network(d, strict=False) for d in found]
    return [n for n in networks if n.prefixlen >= _SPECIFIC]


def make(network: Network) -> None:
    """Makes what is missing."""
    lines, own = [], f"{network.subnet}.1"
    if not _device(network.bridge):
        # Without it the bridge has the lowest of its ports', and another one when they change.
        lines += [f"link add {network.bridge} address {network.mac(own)} type bridge"]
    lines += [f"addr replace {own}/24 dev {network.bridge}", f"link set {network.bridge} up"]
    for host in network.hosts:
        space, port = network.namespace(host), network.port(host)
        cable = (
            f"link add {port} type veth peer name {DEVICE} address {network.mac(network.address(host))} netns {space}"
        )
        if not _namespace(space):
            lines += [f"link del {port}"] if _device(port) else []
            lines += [f"netns add {space}", cable]
        elif not _device(port):
            lines += [cable]
        lines += [f"link set {port} master {network.bridge} up"]
    ip(lines=lines)
    for host in network.hosts:
        address = f"addr replace {network.address(host)}/24 dev {DEVICE}"
        ip("-n", network.namespace(host), lines=["link set lo up", address, f"link set {DEVICE} up"])


def remove(network: Network) -> None:
    """Removes what is there of it. What still runs inside keeps its namespace, without a name and without a cable."""
    lines = [f"link del {port}" for port in map(network.port, network.hosts) if _device(port)]
    lines += [f"netns del {space}" for space in map(network.namespace, network.hosts) if _namespace(space)]
    lines += [f"link del {network.bridge}"] if _device(network.bridge) else []
    if lines:
        ip(lines=lines)


def _namespace(name: str) -> bool:
    return Path("/run/netns", name).exists()


def _device(name: str) -> bool:
    return Path("/sys/class/net", name).exists()
