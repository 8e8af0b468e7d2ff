"""The wire's Python side: damage is seen, nonsense is refused before it is believed, names agree with the Rust side."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspm.errors import AuthError, DataError, DspmError, NotFoundError, ProtocolError, UsageError
from dspm.netram import messages, wire
from dspm.netram.names import dataset_name


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 3]))
def test_round_trip(meta: bytes, request: int, flags: int) -> None:
    raw = wire.encode(wire.Kind.CONTROL, meta, request, flags)
    header = wire.decode_header(raw[:64])
    assert (header.kind, header.request, header.flags) == (2, request, flags)
    assert header.verify(raw[64:]) == meta


def test_every_bit_flip_is_seen() -> None:
    raw = wire.encode(wire.Kind.CONTROL, b"meta", 7)
    for bit in range(len(raw) * 8):
        b = bytearray(raw)
        b[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DataError, ProtocolError)):
            wire.decode_header(bytes(b[:64])).verify(bytes(b[64:]))


@given(st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_refused_or_a_header(raw: bytes) -> None:
    with pytest.raises(DspmError):
        wire.decode_header(raw)


def test_lengths_are_bounded() -> None:
    with pytest.raises(DspmError, match="at most"):
        wire.encode(wire.Kind.CONTROL, bytes(wire.META_MAX + 1), 1)


@given(st.binary(max_size=50))
def test_any_error_reply_is_an_error(meta: bytes) -> None:
    assert isinstance(wire.decode_error(meta), DspmError)


def test_errors_cross_the_wire() -> None:
    e = wire.decode_error(wire.encode_error(NotFoundError("no x")))
    assert isinstance(e, NotFoundError) and str(e) == "no x"
    assert str(wire.decode_error(bytes((14, 1)))) == "refused: the writer was fenced"


def test_only_the_same_key_side_and_nonces_pass() -> None:
    p = wire.proof(b"secret", "dialer", "aa", "bb")
    # The value that crates/proto computes for the same input.
    assert p == "94f2d387958364519b48ae37c100edfe0e846b85cdde2a54f1fcf26d23e98e4b"
    wire.check_proof(b"secret", "dialer", "aa", "bb", p)
    for key, side, first in ((b"other", "dialer", "aa"), (b"secret", "acceptor", "aa"), (b"secret", "dialer", "ab")):
        with pytest.raises(AuthError):
            wire.check_proof(key, side, first, "bb", p)


@given(st.binary(max_size=200))
def test_any_request_is_refused_or_read(meta: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        messages.decode_request(meta)


def test_requests_carry_op() -> None:
    assert messages.encode(messages.Ping()) == b'{"op":"ping"}'
    assert messages.encode(messages.Ping("why")) == b'{"op":"ping","trouble":"why"}'
    locate = messages.Locate("a.db", messages.CreateOptions())
    assert messages.encode(locate) == (
        b'{"op":"locate","name":"a.db",'
        b'"create":{"durability":null,"copies":null,"min_copies":null,"history_ms":null,"exclusive":false}}'
    )
    assert messages.encode(messages.Datasets(True, [], ["x"])) == (
        b'{"op":"datasets","whole":true,"put":[],"del":["x"],"drop":[],"more":false}'
    )


@pytest.mark.parametrize(
    ("namespace", "opened", "name"),
    [
        ("", "a.db", "a.db"),
        ("", "./x//a b.db", "x/a b.db"),
        ("", "/srv/../a.db", "/a.db"),
        ("", "/../a.db", "/a.db"),
        ("", "../a.db", "../a.db"),
        ("", "x/../../a.db", "../a.db"),
        ("", "дом/é.db", "дом/é.db"),
        ("team", "a.db", "team/a.db"),
        ("team", "/srv/a.db", "team/srv/a.db"),
    ],
)
def test_names_are_cleaned_as_in_rust(namespace: str, opened: str, name: str) -> None:
    assert dataset_name(namespace, opened) == name


@pytest.mark.parametrize("opened", ["", ".", "/", "a/..", "a\0b", "n" * 1025, "\udc80"])
def test_names_that_are_none(opened: str) -> None:
    with pytest.raises(UsageError):
        dataset_name("", opened)
