"""Opening databases through the VFS ``dspm``.

The dataset is what the program opened: ``connect("orders.db")``. Which cluster is meant is read at the first open:
the URI's ``config=``, then DSPM_CONFIG, then the user's and the system's config.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from dspm import _native
from dspm.engine.loader import load_into_apsw, load_into_sqlite3
from dspm.engine.uri import database_uri
from dspm.errors import DspmError

if TYPE_CHECKING:
    import apsw

Name = str | os.PathLike[str]


def connect(name: Name, **kw: Any) -> apsw.Connection:
    """Opens a database as an :class:`apsw.Connection`.

    Args:
        name: the dataset's name, or a URI (``file:orders.db?mode=ro``).
        kw: as :class:`apsw.Connection`'s (``flags``, ``statementcachesize``).

    Raises:
        apsw.Error: it cannot be opened; the message says why in the VFS's own words.
        dspm.errors.DspmError: the VFS itself cannot be loaded.
    """
    load_into_apsw()
    import apsw

    flags = kw.pop("flags", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        return apsw.Connection(database_uri(name), flags=flags | apsw.SQLITE_OPEN_URI, **kw)
    except apsw.Error as e:
        _explain(e)
        raise


def sqlite3_connect(name: Name, **kw: Any) -> sqlite3.Connection:
    """Opens a database as a :class:`sqlite3.Connection`.

    Args:
        name: the dataset's name, or a URI (``file:orders.db?mode=ro``).
        kw: as :func:`sqlite3.connect`'s (``timeout`` in seconds, ``isolation_level``, …).

    Raises:
        sqlite3.Error: it cannot be opened; the message says why in the VFS's own words.
        dspm.errors.DspmError: the VFS itself cannot be loaded.
    """
    load_into_sqlite3()
    kw["uri"] = True
    try:
        connection: sqlite3.Connection = sqlite3.connect(database_uri(name), **kw)
    except sqlite3.Error as e:
        _explain(e)
        raise
    return connection


def _explain(error: BaseException) -> None:
    """Puts the VFS's last error into the exception: SQLite's own text is only "unable to open database file"."""
    try:
        reason = _native.last_error()
    except DspmError:
        return
    first = str(error.args[0]) if error.args else ""
    if reason and reason not in first:
        error.args = (f"{first}: {reason}" if first else reason, *error.args[1:])
