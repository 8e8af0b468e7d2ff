"""The checksum of a view, by which registry and node see whether they have the same one: xxh3-64 of the bytes drawn in
docs/formats/wire.md. The other side is `View::checksum` of crates/proto.

The registry's address is left out: it may change without a decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

import xxhash

from dspm.netram.messages import MemberEntry, NodeEntry, SetEntry

_U32, _U64 = Struct("<I"), Struct("<Q")
_SET = Struct("<QQB")


def view_sum(version: int, nodes: Sequence[NodeEntry], sets: Sequence[SetEntry]) -> int:
    """Of that version, in the order of the view."""
    out = bytearray(_U64.pack(version) + _U32.pack(len(nodes)))
    for n in nodes:
        for text in (n.name, n.address, n.machine):
            out += _text(text)
    out += _U32.pack(len(sets))
    for s in sets:
        out += _SET.pack(s.id, s.generation, s.state == "active") + _text(s.primary)
        for members in (s.members, s.joining, s.last_active, s.dropped):
            out += _U32.pack(len(members)) + _members(members)
        out += _U64.pack(s.history)
    return xxhash.xxh3_64_intdigest(bytes(out))


def _members(members: Iterable[MemberEntry]) -> bytes:
    return b"".join(_text(m.node) + _U64.pack(m.store) for m in members)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U32.pack(len(raw)) + raw
