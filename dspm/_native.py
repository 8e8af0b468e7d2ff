"""The binding of libdspm.so: cffi in ABI mode, so that the process has one copy of it and no compiler is needed.

The library that lies in the package (`_native/libdspm.so`) is the only one that is ever loaded: it was built together
with these declarations, which mirror `crates/dspm/dspm.h`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspm.errors import DspmError, from_code

_DIRECTORY = Path(__file__).resolve().parent / "_native"

_DECLARATIONS = """
typedef struct { int code; char message[1024]; char hint[256]; } dspm_error;
int dspm_config_load(const char *path, const char *overrides_json, char **out_json, dspm_error *err);
void dspm_free(void *p);
const char *dspm_version(void);
const char *dspm_last_error(void);
"""

_BUILD_HINT = "build it with `make build`"


def library_path() -> Path:
    """The library, which is also SQLite's loadable extension."""
    return _file("libdspm.so")


def node_binary() -> Path:
    """The program that is a node."""
    return _file("dspm-node")


def _file(name: str) -> Path:
    path = _DIRECTORY / name
    if not path.is_file():
        raise DspmError(f"{path} is missing: this installation of dspm is not complete", _BUILD_HINT)
    return path


@functools.cache
def _load() -> tuple[Any, Any]:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    path = library_path()
    try:
        return ffi, ffi.dlopen(str(path))
    except OSError as e:
        raise DspmError(f"{path} cannot be loaded: {e}", _BUILD_HINT) from None


def version() -> str:
    """Version of the library."""
    ffi, lib = _load()
    return str(ffi.string(lib.dspm_version()).decode())


def last_error() -> str:
    """What the VFS last said went wrong in this process; empty if nothing did."""
    ffi, lib = _load()
    try:
        text = lib.dspm_last_error()
    except AttributeError:
        return ""
    return "" if text == ffi.NULL else str(ffi.string(text).decode("utf-8", "replace"))


def config_json(path: str | None, overrides: Mapping[str, str]) -> bytes:
    """The configuration as JSON, read by the one parser (crates/config).

    Raises:
        UsageError: the file, a variable or an override cannot be used.
        UnavailableError: nothing says which cluster is meant.
    """
    ffi, lib = _load()
    out = ffi.new("char **")
    error = ffi.new("dspm_error *")
    file = ffi.NULL if path is None else ffi.new("char[]", path.encode("utf-8", "surrogateescape"))
    code = lib.dspm_config_load(file, json.dumps(dict(overrides)).encode(), out, error)
    if code:
        text = [ffi.string(t).decode("utf-8", "replace") for t in (error.message, error.hint)]
        raise from_code(code, *text)
    try:
        return bytes(ffi.string(out[0]))
    finally:
        lib.dspm_free(out[0])
