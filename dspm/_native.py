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

from dspm.errors import DspmError, UsageError, from_code

_DIRECTORY = Path(__file__).resolve().parent / "_native"

DECLARATIONS = """
typedef struct { int code; char message[1024]; char hint[256]; } dspm_error;
typedef struct dspm_dataset dspm_dataset;
typedef struct dspm_snapshot dspm_snapshot;
typedef struct dspm_transaction dspm_transaction;

const char *dspm_version(void);
const char *dspm_last_error(void);
int dspm_config_load(const char *path, const char *overrides_json, char **out_json, dspm_error *err);
int dspm_wiredtiger_entry(const char *version, char **out, dspm_error *err);
void dspm_free(void *p);

int dspm_list(const char *config, char **out_json, dspm_error *err);
int dspm_locate(const char *config, const char *name, char **out_json, dspm_error *err);
int dspm_remove(const char *config, const char *name, dspm_error *err);
int dspm_rename(const char *config, const char *name, const char *to, const char *aside, dspm_error *err);

int dspm_dataset_open(const char *config, const char *name, int flags, const char *options_json, dspm_dataset **out,
                      dspm_error *err);
void dspm_dataset_close(dspm_dataset *dataset);
uint64_t dspm_dataset_id(const dspm_dataset *dataset);
int dspm_dataset_name(const dspm_dataset *dataset, char **out, dspm_error *err);
int dspm_dataset_status(const dspm_dataset *dataset, char **out_json, dspm_error *err);
int dspm_dataset_is_reserved(const dspm_dataset *dataset);
int dspm_dataset_hold(const dspm_dataset *dataset, int keep, dspm_error *err);

int dspm_snapshot_begin(const dspm_dataset *dataset, uint64_t *lsn, uint64_t *size, dspm_snapshot **out,
                        dspm_error *err);
int dspm_snapshot_as_of(const dspm_dataset *dataset, const char *time, uint64_t *lsn, uint64_t *size,
                        dspm_snapshot **out, dspm_error *err);
void dspm_snapshot_end(dspm_snapshot *snapshot);
int dspm_snapshot_read(const dspm_snapshot *snapshot, uint64_t first, size_t count, void *into, dspm_error *err);
int dspm_snapshot_read_list(const dspm_snapshot *snapshot, const uint64_t *pages, size_t count, void *into,
                            dspm_error *err);

int dspm_transaction_new(const dspm_dataset *dataset, dspm_transaction **out, dspm_error *err);
int dspm_transaction_reserve(dspm_transaction *transaction, uint64_t expected_lsn, uint32_t wait_ms, uint64_t *lsn,
                             uint64_t *size, dspm_error *err);
int dspm_transaction_snapshot(dspm_transaction *transaction, uint32_t wait_ms, uint64_t *lsn, uint64_t *size,
                              dspm_snapshot **out, dspm_error *err);
int dspm_transaction_reserve_at(dspm_transaction *transaction, const dspm_snapshot *base, dspm_error *err);
int dspm_transaction_read(const dspm_transaction *transaction, uint64_t first, size_t count, void *into,
                          dspm_error *err);
int dspm_transaction_commit(dspm_transaction *transaction, const uint64_t *pages, const void *content, size_t count,
                            uint64_t size, uint64_t *lsn, dspm_error *err);
typedef struct { const dspm_transaction *transaction; const uint64_t *pages; const void *content; size_t count;
                 uint64_t size; uint64_t lsn; } dspm_part;
int dspm_commit_together(dspm_part *parts, size_t count, dspm_error *err);
int dspm_transaction_confirm(dspm_transaction *transaction, dspm_error *err);
int dspm_transaction_finish(dspm_transaction *transaction, uint64_t *lsn, uint64_t *size, dspm_snapshot **out,
                            dspm_error *err);
void dspm_transaction_release(dspm_transaction *transaction);
void dspm_transaction_free(dspm_transaction *transaction);
"""

CREATE, EXCLUSIVE, READONLY = 1, 2, 4
"""Flags of dspm_dataset_open."""

ANY_LSN = 2**64 - 1
"""dspm_transaction_reserve: whatever the newest state is."""

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
def load() -> tuple[Any, Any]:
    """cffi's FFI object and the library. It is never unloaded: it has a thread of its own."""
    import cffi

    ffi: Any = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    path = library_path()
    try:
        return ffi, ffi.dlopen(str(path), ffi.RTLD_NOW | ffi.RTLD_NODELETE)
    except OSError as e:
        raise DspmError(f"{path} cannot be loaded: {e}", _BUILD_HINT) from None


def call(function: str, *arguments: Any) -> None:
    """Calls an entry of dspm.h that takes a dspm_error, and raises the error that it answers."""
    ffi, lib = load()
    try:
        entry = getattr(lib, function)
    except AttributeError:
        raise DspmError(f"{library_path()} has no {function}: it is older than the package", _BUILD_HINT) from None
    error = ffi.new("dspm_error *")
    if code := entry(*arguments, error):
        message, hint = (ffi.string(t).decode("utf-8", "replace") for t in (error.message, error.hint))
        del arguments  # or the traceback would keep alive what the caller is about to release
        raise from_code(code, message, hint)


def call_for_text(function: str, *arguments: Any) -> bytes:
    """As :func:`call`, of an entry whose last answer is a string to be freed."""
    ffi, lib = load()
    out = ffi.new("char **")
    call(function, *arguments, out)
    try:
        return bytes(ffi.string(out[0]))
    finally:
        lib.dspm_free(out[0])


def text(value: str | None) -> Any:
    """A char* of a text, NULL for None.

    Raises:
        UsageError: it cannot be a C string.
    """
    ffi, _ = load()
    if value is None:
        return ffi.NULL
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise UsageError(f"{value[:60]!a} has a NUL", "leave it out")
    return ffi.new("char[]", raw)


def version() -> str:
    """Version of the library."""
    ffi, lib = load()
    return str(ffi.string(lib.dspm_version()).decode())


def last_error() -> str:
    """What the VFS last said went wrong in this process; empty if nothing did."""
    ffi, lib = load()
    try:
        said = lib.dspm_last_error()
    except AttributeError:
        return ""
    return "" if said == ffi.NULL else str(ffi.string(said).decode("utf-8", "replace"))


def wiredtiger_entry(version: str) -> str:
    """The entry of WiredTiger's extension for a program with that version of WiredTiger.

    Raises:
        UsageError: none is known for it.
    """
    return call_for_text("dspm_wiredtiger_entry", text(version)).decode()


def config_json(path: str | None, overrides: Mapping[str, str]) -> bytes:
    """The configuration as JSON, read by the one parser (crates/config).

    Raises:
        UsageError: the file, a variable or an override cannot be used.
        UnavailableError: nothing says which cluster is meant.
    """
    return call_for_text("dspm_config_load", text(path), text(json.dumps(dict(overrides))))
