"""The registry as a process: state directory, socket, signals.

When it serves it prints one line of JSON {"url", "pid"} to stdout and goes on in the foreground.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from dspm.errors import DspmError, UsageError
from dspm.netram.client import port_hint, split_address
from dspm.netram.config import Config
from dspm.netram.registry import api
from dspm.netram.registry.address import is_loopback
from dspm.netram.registry.catalog import Catalog, Defaults
from dspm.netram.registry.membership import Rules
from dspm.netram.registry.service import Service
from dspm.netram.registry.store import Store

STATE_FILE = "registry.db"


def run(config: Config, directory: Path, listen: str, insecure: bool) -> None:
    """Serves until SIGTERM or SIGINT."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if config.durability == "pm":
        raise UsageError("durability = pm needs persistent memory, which nodes cannot use yet", "use memory or disk")
    key = config.key()
    numbers = config.copies, config.min_copies, config.lease_ms, config.history_ms
    defaults = Defaults(config.durability, *numbers)  # type: ignore[arg-type]
    with _bound(listen, insecure) as server, _alone(directory):
        store = Store(directory / STATE_FILE, config.cluster)
        try:
            rules = Rules(config.failover, config.suspect_after_ms / 1e3)
            asyncio.run(_serve(Catalog(store, defaults), key, rules, server))
        finally:
            store.close()


async def _serve(catalog: Catalog, key: bytes, rules: Rules, server: socket.socket) -> None:
    host, port = server.getsockname()[:2]
    catalog.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    service = Service(catalog, key, rules)
    service.start()
    settings = uvicorn.Config(
        api.build(service, key), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    web = _Server(settings)
    service.on_fault = web.end
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, web.end)
    serving = asyncio.create_task(web.serve(sockets=[server]))
    while not web.started and not serving.done():
        await asyncio.sleep(0.005)
    print(json.dumps({"url": catalog.url, "pid": os.getpid()}), flush=True)
    await serving
    await service.stop()
    if service.fault is not None:
        raise service.fault


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to us."""

    def end(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _bound(listen: str, insecure: bool) -> Iterator[socket.socket]:
    try:
        host, port = split_address(listen)
    except ValueError:
        host, port = "", -1
    if not host or not 0 <= port < 65536:
        raise UsageError(f"{listen!r} is no address to listen on", "use host:port, such as 127.0.0.1:7400")
    if not insecure and not is_loopback(host):
        raise UsageError(
            f"the registry does not listen on {host} without encryption, where other machines can reach it",
            "listen on 127.0.0.1, or say --insecure on a network that you trust",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
            server.listen(128)
        except OSError as e:
            text = f"the registry cannot listen on {listen}: {e.strerror}"
            raise DspmError(text, port_hint(listen, "`dspm registry --listen`")) from None
        yield server


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One registry a state directory."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise DspmError(f"the directory {directory} cannot be used: {e.strerror}", "choose another --dir") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DspmError(f"another registry uses {directory}", "one registry serves a cluster") from None
        yield
    finally:
        os.close(lock)
