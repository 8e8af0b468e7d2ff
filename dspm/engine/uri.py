"""SQLite URIs that name the VFS: `dspm`, or `dspm-py`, its twin in Python. https://sqlite.org/uri.html"""

from __future__ import annotations

import os
from urllib.parse import quote, quote_from_bytes

from dspm.errors import UsageError


def database_uri(name: str | os.PathLike[str] | bytes) -> str:
    """The URI that opens `name` through the VFS. A name that is a URI (`file:…`) keeps its parameters."""
    given = os.fspath(name)
    if "\0" in given if isinstance(given, str) else b"\0" in given:
        raise UsageError("a database's name has no NUL", "use a name such as orders.db")
    if isinstance(given, bytes):
        return _uri(quote_from_bytes(given, safe="/"))
    if given.startswith("file:"):
        return _with_vfs(given)
    return _uri(quote(given, safe="/", errors="surrogateescape"))


def _uri(path: str) -> str:
    # An absolute path needs the empty authority, or "//x/y" would be read as host x.
    return f"file:{'//' if path.startswith('/') else ''}{path}?vfs=dspm"


def chosen_vfs(uri: str) -> str:
    """The VFS that a URI of :func:`database_uri` names."""
    query = uri.partition("#")[0].partition("?")[2]
    return _vfs_of(query.split("&"))[-1]


def _vfs_of(parameters: list[str]) -> list[str]:
    return [p.partition("=")[2] for p in parameters if p.partition("=")[0] == "vfs"]


def _with_vfs(uri: str) -> str:
    body, mark, fragment = uri.partition("#")
    path, _, query = body.partition("?")
    parameters = [p for p in query.split("&") if p]
    chosen = _vfs_of(parameters)
    if not chosen:
        parameters.append("vfs=dspm")
    elif chosen[-1] not in ("dspm", "dspm-py"):
        raise UsageError(f"{uri[:80]!r} names another VFS", "leave vfs= out, or open it with apsw or sqlite3 itself")
    return f"{path}?{'&'.join(parameters)}{mark}{fragment}"
