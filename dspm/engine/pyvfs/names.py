"""Names: which are journals, and which no dataset can have."""

from __future__ import annotations

import enum
import re

NAME_MAX = 512
"""Longest name that SQLite may give, a journal's included; so a dataset opened here has at most 504 bytes. Not more:
SQLite reads the name of a super-journal into a buffer of the database's page size, which is 512 bytes at least, and
trusts that the VFS allows no longer one."""


class Kind(enum.Enum):
    """What a name is the name of, by its form. SQLite makes all but the first itself."""

    MAIN = "a database"
    JOURNAL = "a rollback journal"
    WAL = "a write-ahead log: there is none, ever"
    SUPER = "the super-journal of a transaction over several databases"


_SUPER = re.compile(r".+-mj[0-9A-Fa-f]{6}9[0-9A-Fa-f]{2}", re.DOTALL)
"""The form that SQLite's core gives to super-journals: -mj%06X9%02X."""


def kind(name: str) -> Kind:
    """Which kind of file SQLite means."""
    if name.endswith("-journal"):
        return Kind.JOURNAL
    if name.endswith("-wal"):
        return Kind.WAL
    return Kind.SUPER if _SUPER.fullmatch(name) else Kind.MAIN


def refuse(name: str) -> str | None:
    """Why a dataset cannot have that name."""
    length = len(name.encode("utf-8", "surrogateescape"))
    if length > NAME_MAX:
        return f"the name has {length} bytes, more than {NAME_MAX}"
    if name in ("", "/", "..") or name.endswith("/.."):
        return f"'{name}' names no dataset"
    return None
