"""What a dataset is called, and a node; the Python side of `crates/config/src/name.rs`."""

from __future__ import annotations

from dspm.errors import UsageError

NAME_MAX = 1024
"""Most bytes of a dataset's name."""

NODE_NAME_MAX = 64
"""Most characters of a node's name."""


def check_name(name: str) -> str:
    """The name, if it is one that the registry takes: UTF-8, 1 to 1024 bytes, no NUL."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{name[:60]!a} is no name for a dataset: it is not UTF-8", _HINT) from None
    if size > NAME_MAX:
        raise UsageError(f"a dataset's name of {size} bytes: at most {NAME_MAX} are allowed", _HINT)
    if size == 0 or "\0" in name:
        raise UsageError(f"{name[:60]!a} is no name for a dataset", _HINT)
    return name


def clean(typed: str) -> str:
    """Removes ".", ".." and double slashes, without asking any file system. A leading ".." of a relative name stays."""
    absolute = typed.startswith("/")
    parts: list[str] = []
    for part in typed.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not absolute:
            parts.append(part)
    return ("/" if absolute else "") + "/".join(parts)


def dataset_name(namespace: str, opened: str) -> str:
    """The cluster-wide name of what a program opened: lexically cleaned, under the namespace."""
    cleaned = clean(opened)
    if cleaned in ("", "/"):
        raise UsageError(f"{opened[:60]!r} is no name for a dataset", _HINT)
    if namespace:
        cleaned = namespace + cleaned if cleaned.startswith("/") else f"{namespace}/{cleaned}"
    return check_name(cleaned)


def check_node_name(name: str) -> str:
    """The name, if it is one that the registry takes for a node."""
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    if not (0 < len(name) <= NODE_NAME_MAX and plain.isalnum() and plain.isascii()):
        hint = f"a node has a name of 1 to {NODE_NAME_MAX} letters, digits, - . _"
        raise UsageError(f"{name[:80]!r} is no name for a node", hint)
    return name


_HINT = "a name is 1 to 1024 bytes of UTF-8 without a NUL, such as orders.db or shop/orders.db"
