"""The config file that `dspm up` writes. Written by hand so that values stand in it in the words that were given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_BARE = re.compile(r"[0-9]{1,18}|true|false")
_BARE_KEYS = frozenset({"copies", "min_copies", "lease_reads", "cache.prefetch"})


def render(cluster: str, key_file: str, nodes: Sequence[str], registry: str, settings: Mapping[str, str]) -> str:
    """The text of the file."""
    lines = [
        "# Written by `dspm up`. `dspm config show` lists every key. Nodes read it when they start.",
        f"cluster = {quote(cluster)}",
        f"key_file = {quote(key_file)}",
    ]
    if nodes:
        lines.append(f"nodes = [{', '.join(map(quote, nodes))}]")
    if registry:
        lines.append(f"registry = {quote(registry)}")
    lines += [f"{key} = {_value(key, text)}" for key, text in settings.items()]
    return "\n".join(lines) + "\n"


def _value(key: str, text: str) -> str:
    return text if key in _BARE_KEYS and _BARE.fullmatch(text) else quote(text)


def quote(text: str) -> str:
    """A basic string of TOML; JSON's escapes are TOML's, but for DEL and surrogate pairs."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
