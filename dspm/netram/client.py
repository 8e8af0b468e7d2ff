"""A small blocking client of one node, for the command line. One question at a time; it never speaks HTTP."""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from dspm.errors import DataError, DspmError, ProtocolError, UnavailableError
from dspm.netram import messages, wire
from dspm.netram.config import Config
from dspm.netram.messages import Challenge, Hello, Proof

T = TypeVar("T")


def split_address(address: str) -> tuple[str, int]:
    """host and port of "host:port" or "[v6]:port"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def port_hint(address: str, who: str) -> str:
    """What to do about an address that cannot be listened on; `who` can be told another one."""
    port = address.rpartition(":")[2]
    return (
        f"`ss -ltnp 'sport = :{port}'` names who has it: end that (`dspm down --dir D`, if it is a cluster's); "
        f"{who} takes another address"
    )


def reason(e: OSError) -> str:
    """Why, in the system's words; asyncio puts its own into strerror."""
    return os.strerror(e.errno) if e.errno else str(e)


class Client:
    """A connection to one node. Every call ends within `timeout_s`, with an answer or an error."""

    def __init__(self, address: str, key: bytes, cluster: str = "", timeout_s: float = 5.0) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._request = 0
        self._deadline = time.monotonic() + timeout_s
        try:
            self._socket = socket.create_connection(split_address(address), timeout_s)
        except OSError as e:
            raise UnavailableError(f"the node at {address} does not answer: {reason(e)}", _HINT) from None
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(key, cluster)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def ask(self, request: msgspec.Struct, reply: type[T], timeout_s: float | None = None) -> T:
        """Sends a request of the control plane and returns its reply, or raises the error that was answered."""
        self._deadline = time.monotonic() + (timeout_s or self._timeout_s)
        return messages.decode(self._exchange(wire.Kind.CONTROL, messages.encode(request)), reply)

    def _shake_hands(self, key: bytes, cluster: str) -> None:
        mine = wire.nonce()
        hello = Hello(role="client", name=f"dspm[{os.getpid()}]", cluster=cluster, nonce=mine)
        reply = self._exchange(wire.Kind.HELLO, messages.encode(hello))
        challenge = messages.decode(reply, Challenge)
        wire.check_proof(key, "acceptor", mine, challenge.nonce, challenge.proof)
        answer = Proof(wire.proof(key, "dialer", mine, challenge.nonce))
        self._exchange(wire.Kind.HELLO, messages.encode(answer))

    def _exchange(self, kind: wire.Kind, meta: bytes) -> bytes:
        self._request += 1
        try:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            self._socket.sendall(wire.encode(kind, meta, self._request))
            while True:
                header = wire.decode_header(self._receive(wire.HEADER_SIZE))
                answer = header.verify(self._receive(header.meta_len))
                self._receive(header.data_len)
                if header.is_error:
                    raise wire.decode_error(answer)
                if header.kind == kind and (kind == wire.Kind.HELLO or header.request == self._request):
                    return answer
        except TimeoutError:
            raise UnavailableError(f"the node at {self.address} does not answer in time", _HINT) from None
        except OSError as e:
            raise UnavailableError(f"the connection to {self.address} broke: {reason(e)}", _HINT) from None
        except (ProtocolError, DataError) as e:
            raise type(e)(f"{self.address}: {e}", e.hint) from None

    def _receive(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            part = self._socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise UnavailableError(f"the node at {self.address} closed the connection", _HINT)
            parts += part
        return bytes(parts)


def connect_any(config: Config, timeout_s: float = 5.0) -> Client:
    """A connection to the first configured node that answers."""
    key = config.key()
    last: DspmError = UnavailableError("no node is configured", _HINT)
    for address in config.nodes:
        try:
            return Client(address, key, config.cluster, min(timeout_s, 2.0) if len(config.nodes) > 1 else timeout_s)
        except UnavailableError as e:
            last = e
    count = len(config.nodes)
    if count > 1:
        last = UnavailableError(f"none of the {count} nodes of the cluster answers; the last: {last}", _HINT)
    raise last


def ask_any(config: Config, request: msgspec.Struct, reply: type[T], timeout_s: float = 10.0) -> T:
    """Asks the first node that answers."""
    with connect_any(config) as client:
        answer: Any = client.ask(request, reply, timeout_s)
    return answer  # type: ignore[no-any-return]


_HINT = "`dspm status` shows which nodes answer; `dspm up --dir D` starts what is missing"
