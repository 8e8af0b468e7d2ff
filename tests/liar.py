"""A node that lies: it stands between clients and a real node, shakes hands as that node, and harms what the node says.

What it never does is to harm a page and its checksum so that they fit: nobody could tell. Which harm, is up to a seed.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping

import xxhash

from dspm.errors import DspmError
from dspm.netram import wire

KINDS = {
    2: "Control",
    3: "Renewed",
    4: "SnapshotReply",
    5: "Acquired",
    7: "Callback",
    9: "Ack",
    11: "ReadReply",
    12: "OutcomeReply",
    14: "Recall",
}
"""What a client hears, by the kind in the header; an error reply may stand for each that is a reply."""

RARE = (3, 7, 12, 14)
_EDGES = (0, 1, 255, 4095, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
_TRICKLE_S = 0.05
_PAGE = 4096


class Liar:
    """Listens at `address`, in front of the node at `real`; `instead` changes addresses in what the node says."""

    def __init__(self, real: str, seed: int) -> None:
        self.real = real
        self.instead: Mapping[str, str] = {}
        self.lies = False
        self.told: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: set[socket.socket] = {self._listener}
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for s in list(self._sockets):
            _end(s)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                host, port = self.real.rsplit(":", 1)
                node = socket.create_connection((host, int(port)))
            except OSError:
                return
            self._sockets |= {client, node}
            threading.Thread(target=self._ask, args=(client, node), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, node), daemon=True).start()

    def _ask(self, client: socket.socket, node: socket.socket) -> None:
        try:
            while chunk := client.recv(1 << 16):
                node.sendall(chunk)
        except OSError:
            pass
        _end(client)
        _end(node)

    def _answer(self, client: socket.socket, node: socket.socket) -> None:
        try:
            while True:
                head = _exactly(node, wire.HEADER_SIZE)
                header = wire.decode_header(head)
                meta, data = _exactly(node, header.meta_len), _exactly(node, header.data_len)
                if header.kind == wire.Kind.CONTROL:
                    for real, liar in self.instead.items():
                        meta = meta.replace(real.encode(), liar.encode())
                    head = _sealed(head, meta, len(data))
                if not self._tell(client, header.kind, head, meta, data):
                    break
        except (OSError, EOFError, DspmError):
            pass
        _end(client)
        _end(node)

    def _tell(self, client: socket.socket, kind: int, head: bytes, meta: bytes, data: bytes) -> bool:
        """Passes a message on, harmed or not; false: the connection ends."""
        with self._lock:
            r = random.Random(self._random.getrandbits(64))
        if not self.lies or kind not in KINDS or r.random() > (0.5 if kind in RARE else 0.1):
            client.sendall(head + meta + data)
            return True
        harm = r.choice(_HARMS)
        with self._lock:
            self.told[KINDS[kind]] += 1
            self.told[harm.__name__] += 1
        for part in harm(r, head, meta, data):
            if part is None:
                return False
            client.sendall(part)
            if len(part) == 1:
                time.sleep(_TRICKLE_S)
        return True


Parts = list[bytes | None]
"""What is sent; None closes the connection. Single bytes are sent slowly."""


def other_metadata(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    m = bytearray(meta)
    for _ in range(r.randint(1, 3)):
        at = r.randrange(len(m)) if m else 0
        match r.randrange(5):
            case 0 if m:
                m[at] ^= 1 << r.randrange(8)
            case 1:
                m[at & ~7 : (at & ~7) + 8] = struct.pack("<Q", r.choice(_EDGES))
            case 2:
                del m[at:]
            case 3:
                m += r.randbytes(r.randint(1, 40))
            case _:
                m[at & ~3 : (at & ~3) + 4] = struct.pack("<I", r.choice(_EDGES) & 0xFFFFFFFF)
    return [_sealed(head, bytes(m), len(data)) + m + data]


def unsealed_metadata(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [head + bytes([(meta or b"\0")[0] ^ 1]) + meta[1:] + data]


def other_request(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 16, "<Q", r.choice(_EDGES)) + meta + data]


def other_store(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 48, "<Q", r.getrandbits(64)) + meta + data]


def other_group(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 24, "<Q", r.getrandbits(64)) + meta + data]


def other_kind(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 5, "<B", r.choice([*KINDS, 200])) + meta + data]


def other_flags(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 6, "<H", r.choice([0, 2, 3, 0xFFFF])) + meta + data]


def an_error(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    meta = bytes((r.randrange(20), r.randrange(12))) + r.randbytes(r.randrange(30))
    return [_sealed(_header(head, 6, "<H", 3), meta, 0) + meta]


def other_pages(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    """Where there are none, some that nobody asked for."""
    pages = bytearray(data or r.randbytes(_PAGE))
    pages[r.randrange(len(pages))] ^= 1 << r.randrange(8)
    return [_sealed(head, meta, len(pages)) + meta + pages]


def fewer_pages(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    data = data[: r.randrange(len(data) + 1)]
    return [_sealed(head, meta, len(data)) + meta + data]


def more_pages(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    data += r.randbytes(r.choice([1, _PAGE, 1 << 20]))
    return [_sealed(head, meta, len(data)) + meta + data]


def more_than_allowed(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    at, most = r.choice([(8, wire.META_MAX), (12, wire.DATA_MAX)])
    return [_header(head, at, "<I", r.choice([most + 1, 0xFFFFFFFF])) + meta + data]


def more_than_comes(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [_header(head, 12, "<I", wire.DATA_MAX) + meta + data]


def noise(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [r.randbytes(r.randint(2, 300))]


def twice(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return [(head + meta + data) * 2]


def half(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    whole = head + meta + data
    return [whole[: r.randint(2, len(whole) - 1)], None]


def silence(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    return []


def slowly(r: random.Random, head: bytes, meta: bytes, data: bytes) -> Parts:
    """Byte by byte: each comes soon, the whole never."""
    whole = head + meta + data
    return [whole[i : i + 1] for i in range(min(len(whole), 200))]


_HARMS = [
    *(other_metadata,) * 8,
    *(unsealed_metadata, other_request, other_store, other_group, other_kind, other_flags, an_error, an_error),
    *(other_pages, fewer_pages, more_pages, more_than_allowed, more_than_comes, noise, twice, half, silence, slowly),
]
HARMS = {h.__name__ for h in _HARMS}


def _low32(b: bytes) -> bytes:
    return struct.pack("<I", xxhash.xxh3_64_intdigest(b) & 0xFFFFFFFF)


def _sealed(head: bytes, meta: bytes, data_len: int) -> bytes:
    """The header for other metadata and data."""
    head = head[:8] + struct.pack("<II", len(meta), data_len) + head[16:56]
    return head + _low32(head) + _low32(meta)


def _header(head: bytes, at: int, form: str, value: int) -> bytes:
    """The header with another value in a field, sealed."""
    b = bytearray(head)
    struct.pack_into(form, b, at, value)
    return bytes(b[:56]) + _low32(bytes(b[:56])) + bytes(b[60:])


def _exactly(s: socket.socket, n: int) -> bytes:
    parts = []
    while n:
        chunk = s.recv(n)
        if not chunk:
            raise EOFError
        parts.append(chunk)
        n -= len(chunk)
    return b"".join(parts)


def _end(s: socket.socket) -> None:
    with contextlib.suppress(OSError):
        s.shutdown(socket.SHUT_RDWR)
    s.close()
