"""Adding dspm's extension to a user's own configuration of WiredTiger."""

from __future__ import annotations

import pytest

from dspm.errors import UsageError
from dspm.integrations.mongo.engine_config import add_extension, parse, quote

OURS = "/p/libdspm.so={early_load=true,entry=E,config=[dataset=shop]}"


def merged(user: str) -> str:
    return add_extension(user, "/p/libdspm.so", "E", {"dataset": "shop"})


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", f"extensions=[{OURS}]"),
        ("cache_size=1G", f"cache_size=1G,extensions=[{OURS}]"),
        ("cache_size=1G,extensions=[/x.so]", f"cache_size=1G,extensions=[/x.so,{OURS}]"),
        (
            "extensions=(/x.so={entry=f,config=[a=(b,c)]}, /y.so) log=(enabled)",
            f"log=(enabled),extensions=[/x.so={{entry=f,config=[a=(b,c)]}},/y.so,{OURS}]",
        ),
        ("extensions=[/x.so],extensions=[/y.so]", f"extensions=[/y.so,{OURS}]"),
        ('home="a, b",readonly', f'home="a, b",readonly,extensions=[{OURS}]'),
        (
            "transaction_sync=(enabled=true,method=fsync)",
            f"transaction_sync=(enabled=true,method=fsync),extensions=[{OURS}]",
        ),
    ],
)
def test_what_the_user_wrote_stays(user: str, expected: str) -> None:
    assert merged(user) == expected


@pytest.mark.parametrize(
    ("user", "part"),
    [
        ("cache_size=(1G", "lacks a ')'"),
        ('a="b', "lacks a"),
        ("a=b)", "too many"),
        ("a=(b]", "too many"),
        ("extensions=[/p/libdspm.so={entry=dspm_wiredtiger_4_0}]", "already"),
    ],
)
def test_what_cannot_be_is_refused(user: str, part: str) -> None:
    with pytest.raises(UsageError, match=part.replace("(", r"\(").replace(")", r"\)")):
        merged(user)


def test_values_that_need_quotes_get_them() -> None:
    assert quote("/etc/dspm.toml") == "/etc/dspm.toml"
    assert quote("my shop,2") == '"my shop,2"'
    for bad in ('a"b', "a\\b", "a\nb"):
        with pytest.raises(UsageError, match="cannot stand"):
            quote(bad)


def test_nested_values_are_one() -> None:
    assert list(parse("a=(b=(c,d),e=[f]), g h={i}")) == [("a", "(b=(c,d),e=[f])"), ("g", ""), ("h", "{i}")]
