"""WiredTiger's configuration strings: as much of them as it takes to add an extension to a user's own.

The syntax (WiredTiger documentation, "Configuration strings"): `key=value` or `key`, divided by commas or blanks; a
value is a word, a string in double quotes, or a list in (), [] or {}; where a key stands twice, the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from dspm.errors import UsageError

_HINT = "WiredTiger's documentation describes configuration strings; engineConfig.configString holds one"
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SEPARATORS = ", \t\n\r"


def add_extension(user: str, library: str, entry: str, options: dict[str, str]) -> str:
    """The user's configuration with our file system as one more extension, loaded before anything is opened.

    Raises:
        UsageError: it is no configuration string, or names dspm's extension already.
    """
    items = list(parse(user))
    values = dict(items)
    extensions = _elements(values.get("extensions", ""))
    if any("dspm_wiredtiger" in e for e in extensions):
        raise UsageError("the engine's configuration names dspm's extension already", "leave it to `dspm mongo`")
    config = ",".join(f"{key}={quote(value)}" for key, value in options.items())
    ours = f"{quote(library)}={{early_load=true,entry={entry},config=[{config}]}}"
    others = [f"{key}={value}" if value else key for key, value in items if key != "extensions"]
    return ",".join([*others, f"extensions=[{','.join([*extensions, ours])}]"])


def quote(value: str) -> str:
    """A value as it stands in a configuration string.

    Raises:
        UsageError: WiredTiger has no way to write it.
    """
    if any(c in value for c in '"\\') or not value.isprintable():
        raise UsageError(f"{value!r} cannot stand in WiredTiger's configuration", "use a path or name without quotes")
    plain = value and all(c.isalnum() or c in "/_.-" for c in value)
    return value if plain else f'"{value}"'


def parse(text: str) -> Iterator[tuple[str, str]]:
    """Keys and values in order, as they are written; a key alone has the value ''.

    Raises:
        UsageError: a bracket or quote without its end, or an end without its begin.
    """
    for item in _split(text):
        key, equals, value = _key(item)
        yield key, value if equals else ""


def _key(item: str) -> tuple[str, str, str]:
    if item.startswith('"'):
        end = item.index('"', 1) + 1
        return item[:end].strip('"'), item[end : end + 1], item[end + 1 :]
    return item.partition("=")


def _elements(value: str) -> list[str]:
    """What stands in a list."""
    return list(_split(_inside(value)))


def _inside(value: str) -> str:
    return value[1:-1] if value[:1] in _CLOSING and value[-1:] == _CLOSING[value[0]] else value


def _split(text: str) -> Iterator[str]:
    item, open_, quoted = "", list[str](), False
    for c in text:
        if quoted:
            quoted = c != '"'
        elif c == '"':
            quoted = True
        elif c in _CLOSING:
            open_.append(_CLOSING[c])
        elif c in _CLOSING.values():
            if not open_ or open_.pop() != c:
                raise UsageError(f"the engine's configuration has a {c!r} too many: {_shown(text)}", _HINT)
        elif c in _SEPARATORS and not open_:
            if item:
                yield item
            item = ""
            continue
        item += c
    if quoted or open_:
        missing = open_[-1] if open_ else '"'
        raise UsageError(f"the engine's configuration lacks a {missing!r}: {_shown(text)}", _HINT)
    if item:
        yield item


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
