"""Registers the VFS with every SQLite library of this process that is asked for: apsw carries one, Python's sqlite3
is linked to another. Once a library; the extension stays loaded for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING

from dspm import _native
from dspm.errors import DspmError

if TYPE_CHECKING:
    import sqlite3

_lock = threading.Lock()
_loaded: set[str] = set()


def _forked() -> None:
    """A child must not wait for a lock that some thread of its parent held at the fork."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)

_SQLITE_OK = 0
_OPEN_READWRITE_CREATE = 0x2 | 0x4


def load_into_apsw() -> None:
    """Registers the VFS with apsw's SQLite."""
    with _lock:
        if "apsw" in _loaded:
            return
        import apsw

        path = str(_native.library_path())
        with contextlib.closing(apsw.Connection(":memory:", vfs="unix-none")) as db:
            db.enable_load_extension(True)
            try:
                db.load_extension(path)
            except apsw.Error as e:
                raise _failed(path, "apsw", str(e)) from None
        _loaded.add("apsw")


def load_into_sqlite3() -> None:
    """Registers the VFS with the SQLite of Python's own sqlite3 module."""
    with _lock:
        if "sqlite3" in _loaded:
            return
        import sqlite3

        path = str(_native.library_path())
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            if hasattr(db, "enable_load_extension"):
                _load_by_method(db, path)
            else:
                _load_by_library(path)
        _loaded.add("sqlite3")


def _load_by_method(db: sqlite3.Connection, path: str) -> None:
    import sqlite3

    db.enable_load_extension(True)
    try:
        db.load_extension(path)
    except sqlite3.Error as e:
        raise _failed(path, "sqlite3", str(e)) from None


def _load_by_library(path: str) -> None:
    """For a Python whose sqlite3 module was built without load_extension: asks the library that it is linked to."""
    lib = _linked_library()
    db, text = ctypes.c_void_p(), ctypes.c_char_p()
    lib.sqlite3_open_v2.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_char_p]
    lib.sqlite3_enable_load_extension.argtypes = [ctypes.c_void_p, ctypes.c_int]
    lib.sqlite3_load_extension.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_char_p),
    ]
    lib.sqlite3_free.argtypes = [ctypes.c_void_p]
    lib.sqlite3_close.argtypes = [ctypes.c_void_p]
    if lib.sqlite3_open_v2(b":memory:", ctypes.byref(db), _OPEN_READWRITE_CREATE, None) != _SQLITE_OK:
        raise _failed(path, "sqlite3", "no temporary connection")
    try:
        lib.sqlite3_enable_load_extension(db, 1)
        if lib.sqlite3_load_extension(db, os.fsencode(path), None, ctypes.byref(text)) != _SQLITE_OK:
            why = (text.value or b"no reason given").decode("utf-8", "replace")
            lib.sqlite3_free(text)
            raise _failed(path, "sqlite3", why)
    finally:
        lib.sqlite3_close(db)


def _linked_library() -> ctypes.CDLL:
    """The libsqlite3 that the sqlite3 module uses, found among the libraries that are mapped already."""
    import _sqlite3

    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        mapped = {line.split(maxsplit=5)[5].rstrip("\n") for line in f if "/" in line}
    for path in sorted(p for p in mapped if os.path.basename(p).startswith("libsqlite3.so")):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(path)
    module = getattr(_sqlite3, "__file__", None)
    lib = ctypes.CDLL(module)
    if not hasattr(lib, "sqlite3_load_extension"):
        raise DspmError(
            "this Python's sqlite3 module cannot load extensions", "use dspm.connect(), which needs apsw only"
        )
    return lib


def _failed(path: str, who: str, why: str) -> DspmError:
    return DspmError(f"{path} cannot be loaded into the SQLite of {who}: {why}", "rebuild dspm with `make build`")
