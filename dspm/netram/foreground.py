"""`dspm node`: this process becomes the node; a helper beside it registers it and goes.

The process turns into `dspm-node` itself (exec), so that a supervisor's signals reach it and no Python stays. The
helper reads the node's one line from a pipe, passes it on, and tells the registry, again and again until it answers:
a node serves without a registry.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from dspm.errors import DspmError, UnavailableError, UsageError
from dspm.netram.client import split_address
from dspm.netram.config import Config
from dspm.netram.node import Node, arguments, parse_announcement
from dspm.netram.operator import Operator
from dspm.netram.registry.address import is_loopback

RETRY_MAX_S = 5.0


def run_node(node: Node, config: Config, listen: str, metrics: str, insecure: bool) -> NoReturn:
    """Becomes the node."""
    if not config.registry:
        raise UsageError("the config names no registry to join", "set `registry` to its URL, http://host:port")
    for address in (listen, metrics):
        _check_address(address, insecure)
    key = config.key()
    command = arguments(node, config, listen, metrics, insecure)
    Path(node.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    read, write = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(write)
            os._exit(_help(node, config.registry, key, read, parent))
        os._exit(0)
    os.wait()
    os.close(read)
    os.dup2(write, 1)
    os.close(write)
    sys.stderr.flush()
    os.execv(command[0], command)


def _check_address(address: str, insecure: bool) -> None:
    try:
        host, port = split_address(address)
    except ValueError:
        host, port = "", -1
    if not host or not 0 <= port < 65536:
        raise UsageError(f"{address!r} is no address to listen on", "use host:port, such as 127.0.0.1:7401")
    if not insecure and not is_loopback(host):
        raise UsageError(
            f"a node does not listen on {host} without encryption, where other machines can reach it",
            "listen on 127.0.0.1, or say --insecure on a network that you trust",
        )


def _help(node: Node, registry: str, key: bytes, read: int, parent: int) -> int:
    try:
        with os.fdopen(read, "rb") as pipe:
            line = pipe.readline()
        if not line:
            return 1
        address = parse_announcement(line, f"node {node.name}").address
        print(line.decode().strip(), flush=True)
        _register(node, registry, key, address, parent)
    except (DspmError, OSError) as e:
        hint = f"\nhint: {e.hint}" if isinstance(e, DspmError) and e.hint else ""
        print(f"dspm: warning: the node {node.name} is not registered: {e}{hint}", file=sys.stderr, flush=True)
        return 1
    return 0


def _register(node: Node, registry: str, key: bytes, address: str, parent: int) -> None:
    pause, said = 0.1, False
    while Path(f"/proc/{parent}").exists():
        try:
            with Operator(registry, key) as operator:
                operator.add_node(node.name, address, node.machine)
            return
        except UnavailableError as e:
            if not said:
                print(f"dspm: warning: {e}; trying again", file=sys.stderr, flush=True)
                said = True
        time.sleep(pause)
        pause = min(pause * 2, RETRY_MAX_S)
