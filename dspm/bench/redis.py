"""A redis-server of our own to be compared with: on a loopback port, in memory only, ended when the comparison is."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from dspm.errors import DspmError

VALUE_BYTES = 4096
START_SECONDS = 10.0
ATTEMPTS = 3
"""Between the choice of a free port and its use somebody else may take it."""
HOW_TO_INSTALL = "redis-server and redis-benchmark are not installed (Debian: sudo apt-get install redis-server)"


def is_installed() -> bool:
    """Whether there is something to be compared with."""
    return all(shutil.which(name) for name in ("redis-server", "redis-benchmark"))


class Redis:
    """A server that runs and holds `keys` values of 4 KiB."""

    def __init__(self, port: int, keys: int) -> None:
        self._port = port
        self._keys = keys

    def gets_per_s(self, requests: int, connections: int) -> float:
        """GETs of random keys a second, by one `redis-benchmark` process, each connection with one under way."""
        command = ["redis-benchmark", "-p", str(self._port), "-c", str(connections), "-n", str(requests)]
        command += ["-r", str(self._keys), "-d", str(VALUE_BYTES), "-t", "get", "--csv"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for row in csv.reader(done.stdout.splitlines()):
            if row and row[0] == "GET":
                return float(row[1])
        text = (done.stderr or done.stdout).strip()
        raise DspmError(f"redis-benchmark said {text[-200:]!r}", "leave Redis out: uninstall it or change PATH")


@contextlib.contextmanager
def running(keys: int) -> Iterator[Redis]:
    """Starts a server and fills it with the keys that `redis-benchmark -r` asks for."""
    with tempfile.TemporaryDirectory(prefix="dspm-redis-") as directory:
        server, port = _start(directory)
        try:
            _fill(port, keys)
            yield Redis(port, keys)
        finally:
            server.kill()
            server.wait()


def _start(directory: str) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(ATTEMPTS):
        port = _free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            if _serves(server, port):
                return server, port
        except BaseException:
            server.kill()
            server.wait()
            raise
        server.kill()
        server.wait()
    raise DspmError("redis-server does not start", "try it by hand: redis-server --port 0")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serves(server: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
            line.sendall(_command(b"INFO", b"server"))
            if f"process_id:{server.pid}".encode() in line.recv(4096):  # it is ours, not somebody else's
                return True
        time.sleep(0.01)
    return False


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _fill(port: int, keys: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as line, line.makefile("rb") as answers:
        for key in range(keys):
            line.sendall(_command(b"SET", b"key:%012d" % key, os.urandom(VALUE_BYTES)))
            answer = answers.readline()
            if answer != b"+OK\r\n":
                raise DspmError(f"redis-server answered SET with {answer[:80]!r}")
