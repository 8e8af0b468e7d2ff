"""Finds a libwiredtiger.so and declares what is called of it, by cffi in ABI mode.

WiredTiger's methods are pointers in structures, whose places differ between versions. The structures here hold a name
where one is called and a gap where none is; which ones count is known from the version that the library itself tells,
and a version that is not known is refused before anything is called. cffi gives up the interpreter's lock for each
call, so threads wait for the cluster, or the disk, side by side.
"""

from __future__ import annotations

import ctypes.util
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspm import _native
from dspm.errors import DspmError, UnavailableError, UsageError
from dspm.integrations.mongo.program import wiredtiger_version

VARIABLE = "DSPM_WIREDTIGER"
HINT = f"name one by --wiredtiger or {VARIABLE}; Debian has libwiredtiger-dev, `make wiredtiger` builds two"

_METHODS = {
    "close_connection": "int (*close)(wt_connection *, const char *);",
    "open_session": "int (*open_session)(wt_connection *, void *, const char *, wt_session **);",
    "close_session": "int (*close)(wt_session *, const char *);",
    "open_cursor": "int (*open_cursor)(wt_session *, const char *, wt_cursor *, const char *, wt_cursor **);",
    "create": "int (*create)(wt_session *, const char *, const char *);",
    "drop": "int (*drop)(wt_session *, const char *, const char *);",
    "begin": "int (*begin_transaction)(wt_session *, const char *);",
    "commit": "int (*commit_transaction)(wt_session *, const char *);",
    "rollback": "int (*rollback_transaction)(wt_session *, const char *);",
    "checkpoint": "int (*checkpoint)(wt_session *, const char *);",
    "get_key": "int (*get_key)(wt_cursor *, ...);",
    "get_value": "int (*get_value)(wt_cursor *, ...);",
    "set_key": "void (*set_key)(wt_cursor *, ...);",
    "set_value": "void (*set_value)(wt_cursor *, ...);",
    "next": "int (*next)(wt_cursor *);",
    "reset": "int (*reset)(wt_cursor *);",
    "search": "int (*search)(wt_cursor *);",
    "search_near": "int (*search_near)(wt_cursor *, int *);",
    "insert": "int (*insert)(wt_cursor *);",
    "update": "int (*update)(wt_cursor *);",
    "close_cursor": "int (*close)(wt_cursor *);",
}

_SESSION_10 = {
    "close_session": 2, "open_cursor": 5, "create": 7, "drop": 9, "begin": 19, "commit": 20, "rollback": 22,
    "checkpoint": 26,
}  # fmt: skip
_CURSOR_10 = {
    "get_key": 4, "get_value": 5, "set_key": 7, "set_value": 8, "next": 11, "reset": 13, "search": 14,
    "search_near": 15, "insert": 16, "update": 18, "close_cursor": 22,
}  # fmt: skip
# For each entry of dspm's extension the words at which the methods of a connection, a session and a cursor stand.
_PLACES: dict[str, tuple[dict[str, int], dict[str, int], dict[str, int]]] = {
    "dspm_wiredtiger_4_0": (
        {"close_connection": 2, "open_session": 8},
        {
            "close_session": 2, "open_cursor": 5, "create": 7, "drop": 10, "begin": 21, "commit": 22, "rollback": 24,
            "checkpoint": 27,
        },
        {
            "get_key": 4, "get_value": 5, "set_key": 6, "set_value": 7, "next": 10, "reset": 12, "search": 13,
            "search_near": 14, "insert": 15, "update": 17, "close_cursor": 20,
        },
    ),
    "dspm_wiredtiger_5_0": ({"close_connection": 0, "open_session": 6}, _SESSION_10, _CURSOR_10),
    "dspm_wiredtiger_8_0": (
        {"close_connection": 0, "open_session": 7},
        {**_SESSION_10, "create": 8, "drop": 10},
        _CURSOR_10,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Library:
    """A library that is loaded, and the entry of dspm's extension for it."""

    path: Path
    version: str
    entry: str
    ffi: Any
    lib: Any

    def strerror(self, code: int) -> str:
        """What WiredTiger calls an error."""
        return str(self.ffi.string(self.lib.wiredtiger_strerror(code)).decode("utf-8", "replace"))


def find(path: str = "") -> Path:
    """The library: the one that is named, by argument or in the environment, else the newest that `make wiredtiger`
    built, else the linker's.

    Raises:
        UsageError: there is nothing at the path that was named.
        UnavailableError: none was named, and none is here.
    """
    named = path or os.environ.get(VARIABLE, "")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"there is no WiredTiger library {named}", HINT)
        return Path(named).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dspm"
    built = sorted(cache.glob("wiredtiger-*/lib/libwiredtiger.so"), key=_number)
    if built:
        return built[-1].resolve()
    linked = ctypes.util.find_library("wiredtiger")
    if linked is None:
        raise UnavailableError("there is no WiredTiger library here", HINT)
    return Path(_loaded_from(linked))


def _number(library: Path) -> tuple[int, ...]:
    digits = library.parent.parent.name.removeprefix("wiredtiger-").split(".")
    return tuple(int(x) if x.isdigit() else 0 for x in digits)


def _loaded_from(name: str) -> str:
    """Where the linker finds a library: it is looked up in the process's own map."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise UnavailableError(f"{name} cannot be loaded: {error}", HINT) from None
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = next((line.split(maxsplit=5)[5] for line in lines if "libwiredtiger" in line), None)
    if found is None:
        raise UnavailableError(f"the linker loads {name} from a place that cannot be seen", HINT)
    return found


@functools.cache
def load(path: Path) -> Library:
    """Loads it. A process may have several versions, each with its own declarations.

    Raises:
        UsageError: it is no WiredTiger, or one whose interface is not known.
        DspmError: the linker cannot load it.
    """
    import cffi

    version = wiredtiger_version(path)
    entry = _native.wiredtiger_entry(version)
    if entry not in _PLACES:
        known = ", ".join(sorted(_PLACES))
        raise UsageError(f"{path} is WiredTiger {version}, which this benchmark cannot call (it knows {known})", HINT)
    ffi: Any = cffi.FFI()
    ffi.cdef(_declarations(entry))
    try:
        return Library(path, version, entry, ffi, ffi.dlopen(str(path), ffi.RTLD_NOW | ffi.RTLD_LOCAL))
    except OSError as error:
        raise DspmError(f"{path} cannot be loaded: {error}", HINT) from None


def _declarations(entry: str) -> str:
    connection, session, cursor = _PLACES[entry]
    return "\n".join(
        (
            "typedef struct wt_connection wt_connection;",
            "typedef struct wt_session wt_session;",
            "typedef struct wt_cursor wt_cursor;",
            "typedef struct { const void *data; size_t size; void *mem; size_t memsize; uint32_t flags; } wt_item;",
            _structure("wt_connection", connection),
            _structure("wt_session", session),
            _structure("wt_cursor", cursor),
            "int wiredtiger_open(const char *home, void *handler, const char *config, wt_connection **out);",
            "const char *wiredtiger_strerror(int error);",
        )
    )


def _structure(name: str, places: dict[str, int]) -> str:
    """A structure with gaps of as many words as lie between the methods that are called."""
    lines, word = [], 0
    for method, place in sorted(places.items(), key=lambda item: item[1]):
        if place > word:
            lines.append(f"void *gap{word}[{place - word}];")
        lines.append(_METHODS[method])
        word = place + 1
    return f"struct {name} {{ {' '.join(lines)} }};"
