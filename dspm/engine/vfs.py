"""Opening databases through the VFS ``dspm``, or through ``dspm-py``, the same VFS in Python (`dspm.engine.pyvfs`).

The dataset is what the program opened: ``connect("orders.db")``. Which cluster is meant is read at the first open:
the URI's ``config=``, then DSPM_CONFIG, then the user's and the system's config.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from dspm import _native
from dspm.engine.loader import load_into_apsw, load_into_sqlite3
from dspm.engine.uri import chosen_vfs, database_uri
from dspm.errors import DspmError, UsageError

if TYPE_CHECKING:
    import apsw

Name = str | os.PathLike[str]


def register_python() -> None:
    """Registers ``dspm-py`` with apsw's SQLite, for as long as the process lives.

    :func:`connect` does it for names that ask for it (``file:orders.db?vfs=dspm-py``).
    """
    with _registering:
        _python_vfs()


_registering = threading.Lock()


@functools.cache  # apsw takes a VFS away with its last reference
def _python_vfs() -> apsw.VFS:
    from dspm.engine.pyvfs.vfs import PythonVfs

    return PythonVfs()


def connect(name: Name, **kw: Any) -> apsw.Connection:
    """Opens a database as an :class:`apsw.Connection`.

    Args:
        name: the dataset's name, or a URI (``file:orders.db?mode=ro``); with ``vfs=dspm-py`` through the VFS in Python.
        kw: as :class:`apsw.Connection`'s (``flags``, ``statementcachesize``).

    Raises:
        apsw.Error: it cannot be opened; the message says why in the VFS's own words.
        dspm.errors.DspmError: the VFS itself cannot be loaded.
    """
    load_into_apsw()
    import apsw

    uri = database_uri(name)
    python = chosen_vfs(uri) == "dspm-py"
    if python:
        register_python()
    flags = kw.pop("flags", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        return apsw.Connection(uri, flags=flags | apsw.SQLITE_OPEN_URI, **kw)
    except apsw.Error as e:
        if not python:  # which raises its own words
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
    uri = database_uri(name)
    if chosen_vfs(uri) == "dspm-py":
        raise UsageError("dspm-py serves apsw only", "use dspm.connect(), or vfs=dspm")
    load_into_sqlite3()
    kw["uri"] = True
    try:
        connection: sqlite3.Connection = sqlite3.connect(uri, **kw)
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
