"""The wire as the control plane speaks it: the 64-byte header, error replies, and the proofs of the handshake.

The Python side of `crates/proto/src/{header,error,auth}.rs`. Everything a peer sends is hostile: lengths are checked
before anything is read, checksums before anything is parsed. Pure: sockets are in `client.py` and `link.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from enum import IntEnum

import xxhash

from dspm.errors import AuthError, DataError, DspmError, ProtocolError, code_of, from_code
from dspm.netram.key import misfit

HEADER_SIZE = 64
MAGIC = b"DSPM"
VERSION = 1
META_MAX = 4 << 20
DATA_MAX = 4 << 20
FLAG_REPLY = 1
FLAG_ERROR = 2

_HEAD = struct.Struct("<4sBBHIIQQQQQ")
_SUMS = struct.Struct("<II")


class Kind(IntEnum):
    """What a message is, as far as the control plane meets it."""

    HELLO = 1
    CONTROL = 2


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header. `meta_len` and `data_len` are in bytes."""

    kind: int
    flags: int
    meta_len: int
    data_len: int
    request: int
    meta_sum: int

    @property
    def is_reply(self) -> bool:
        """True when the message answers a request."""
        return bool(self.flags & FLAG_REPLY)

    @property
    def is_error(self) -> bool:
        """True when the message is an error reply."""
        return bool(self.flags & FLAG_ERROR)

    def verify(self, meta: bytes) -> bytes:
        """The metadata, if it is what the header promised."""
        if len(meta) != self.meta_len or _low32(meta) != self.meta_sum:
            raise DataError("corrupt data: metadata checksum")
        return meta


def _low32(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def encode(kind: int, meta: bytes, request: int, flags: int = 0) -> bytes:
    """A message without page data."""
    if len(meta) > META_MAX:
        raise DspmError(f"a message of {len(meta)} bytes of metadata: at most {META_MAX} are allowed")
    head = _HEAD.pack(MAGIC, VERSION, kind, flags, len(meta), 0, request, 0, 0, 0, 0)
    return head + _SUMS.pack(_low32(head), _low32(meta)) + meta


def decode_header(raw: bytes) -> Header:
    """Checks 64 bytes of a peer."""
    magic, version, kind, flags, meta_len, data_len, request, *_ = _HEAD.unpack_from(raw)
    head_sum, meta_sum = _SUMS.unpack_from(raw, 56)
    if magic != MAGIC:
        raise ProtocolError("the peer does not speak dspm (wrong magic)", _VERSION_HINT)
    if version != VERSION:
        raise ProtocolError(f"dspm format version {version} where {VERSION} is spoken", _VERSION_HINT)
    if _low32(raw[:56]) != head_sum:
        raise DataError("corrupt data: header checksum")
    if meta_len > META_MAX or data_len > DATA_MAX:
        raise DataError(f"corrupt data: a message of {meta_len} + {data_len} bytes")
    return Header(kind, flags, meta_len, data_len, request, meta_sum)


def encode_error(error: DspmError) -> bytes:
    """Metadata of an error reply: code, detail, text."""
    return bytes((code_of(error), 0)) + str(error).encode("utf-8", "replace")[:4096]


_REFUSALS = (
    "the writer was fenced",
    "the session is over",
    "the record does not follow the tail",
    "this node does not serve that group",
    "the member has not settled yet",
    "the arena is full",
    "a part of the record is missing",
    "checksum mismatch",
)


def decode_error(meta: bytes) -> DspmError:
    """The error of an error reply. Total: what cannot be read is a ProtocolError."""
    if len(meta) < 2:
        return ProtocolError("an empty error reply", _VERSION_HINT)
    code, detail, text = meta[0], meta[1], meta[2:].decode("utf-8", "replace")
    if code == 14:
        text = f"refused: {_REFUSALS[detail - 1] if 0 < detail <= len(_REFUSALS) else detail}"
    elif code == 4:
        text = f"corrupt data: {text}"
    return from_code(code, text)


_VERSION_HINT = "run the same dspm version on clients and nodes, and check the port"


def nonce() -> str:
    """16 random bytes in hexadecimal."""
    return secrets.token_hex(16)


def proof(key: bytes, side: str, dialer_nonce: str, acceptor_nonce: str) -> str:
    """HMAC-SHA-256 over side and both nonces, each ended by a zero byte."""
    text = b"".join(part.encode() + b"\0" for part in (side, dialer_nonce, acceptor_nonce))
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def check_proof(key: bytes, side: str, dialer_nonce: str, acceptor_nonce: str, given: str) -> None:
    """Raises AuthError unless the proof was made with this key."""
    if not hmac.compare_digest(proof(key, side, dialer_nonce, acceptor_nonce).encode(), given.encode()):
        raise from_code(10, misfit(key))


def operator_token(key: bytes) -> str:
    """What operators show to the registry's HTTP API; it does not give the key away."""
    return hmac.new(key, b"dspm operator\0", hashlib.sha256).hexdigest()


__all__ = [
    "DATA_MAX",
    "FLAG_ERROR",
    "FLAG_REPLY",
    "HEADER_SIZE",
    "META_MAX",
    "AuthError",
    "Header",
    "Kind",
    "check_proof",
    "decode_error",
    "decode_header",
    "encode",
    "encode_error",
    "nonce",
    "operator_token",
    "proof",
]
