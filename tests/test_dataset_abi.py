"""The C ABI: the header is C, Python's declarations mirror it, misuse is an error, and a C program can use it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import cluster, config  # noqa: F401

from dspm import _native
from dspm.errors import UnavailableError, UsageError
from dspm.txn import Dataset

HEADER = Path(__file__).resolve().parent.parent / "crates" / "dspm" / "dspm.h"

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dspm.h"

static dspm_error err;
#define DO(call) do { if (call) { fprintf(stderr, "%d %s\n", err.code, err.message); return 1; } } while (0)

int main(void) {
  dspm_dataset *ds, *other; dspm_transaction *t, *second; dspm_snapshot *before, *after, *turn, *last, *past;
  uint64_t lsn, size, pages[2] = {0, 5}, list[3] = {5, 1, 0};
  char content[2 * DSPM_PAGE_SIZE], back[3 * DSPM_PAGE_SIZE], *json;
  memset(content, 'a', DSPM_PAGE_SIZE); memset(content + DSPM_PAGE_SIZE, 'b', DSPM_PAGE_SIZE);
  DO(dspm_dataset_open(NULL, "from-c", DSPM_CREATE | DSPM_EXCLUSIVE, "{\"copies\": 2}", &ds, &err));
  DO(dspm_snapshot_begin(ds, &lsn, &size, &before, &err));
  if (lsn || size) return 2;
  DO(dspm_transaction_new(ds, &t, &err));
  if (dspm_transaction_commit(t, pages, content, 2, 6 * 4096, &lsn, &err) != DSPM_E_USAGE) return 3;
  DO(dspm_transaction_reserve(t, DSPM_ANY_LSN, 1000, &lsn, &size, &err));
  DO(dspm_transaction_new(ds, &second, &err));
  if (dspm_transaction_reserve(second, DSPM_ANY_LSN, 20, &lsn, &size, &err) != DSPM_E_BUSY) return 4;
  DO(dspm_transaction_commit(t, pages, content, 2, 6 * 4096, &lsn, &err));
  dspm_transaction_free(t);
  if (lsn != 1 || dspm_transaction_reserve(second, 0, 1000, &lsn, &size, &err) != DSPM_E_CONFLICT) return 5;
  DO(dspm_transaction_snapshot(second, 100, &lsn, &size, &turn, &err));
  if (dspm_transaction_reserve_at(second, before, &err) != DSPM_E_CONFLICT || dspm_dataset_is_reserved(ds)) return 11;
  if (dspm_transaction_finish(second, &lsn, &size, &last, &err) != DSPM_E_USAGE) return 12;
  DO(dspm_transaction_reserve_at(second, turn, &err));
  if (!dspm_dataset_is_reserved(ds)) return 13;
  DO(dspm_dataset_hold(ds, 1, &err)); DO(dspm_transaction_confirm(second, &err)); DO(dspm_dataset_hold(ds, 0, &err));
  DO(dspm_transaction_finish(second, &lsn, &size, &last, &err));
  if (lsn != 1 || size != 6 * 4096 || dspm_dataset_is_reserved(ds)) return 14;
  DO(dspm_snapshot_read(last, 5, 1, back, &err));
  if (back[0] != 'b') return 15;
  dspm_snapshot_end(turn); dspm_snapshot_end(last); dspm_transaction_free(second);
  DO(dspm_snapshot_begin(ds, &lsn, &size, &after, &err));
  if (lsn != 1 || size != 6 * 4096) return 6;
  DO(dspm_snapshot_as_of(ds, "1", &lsn, &size, &past, &err));
  DO(dspm_snapshot_read(past, 5, 1, back, &err));
  if (lsn != 1 || size != 6 * 4096 || back[0] != 'b') return 16;
  if (dspm_transaction_new(ds, &t, &err) || dspm_transaction_reserve_at(t, past, &err) != DSPM_E_PERMISSION) return 17;
  dspm_transaction_free(t); dspm_snapshot_end(past);
  if (dspm_snapshot_as_of(ds, "2", &lsn, &size, &past, &err) != DSPM_E_USAGE) return 18;
  if (dspm_snapshot_as_of(ds, NULL, &lsn, &size, &past, &err) != DSPM_E_USAGE) return 19;
  DO(dspm_snapshot_as_of(ds, "now", &lsn, &size, &past, &err)); dspm_snapshot_end(past);
  DO(dspm_dataset_status(ds, &json, &err)); puts(json); dspm_free(json);
  DO(dspm_rename(NULL, "from-c", "renamed", NULL, &err));
  dspm_dataset_close(ds);
  DO(dspm_snapshot_read_list(after, list, 3, back, &err));
  if (back[0] != 'b' || back[DSPM_PAGE_SIZE] != 0) return 7;
  if (memcmp(back + 2 * DSPM_PAGE_SIZE, content, DSPM_PAGE_SIZE)) return 10;
  DO(dspm_snapshot_read(before, 0, 3, back, &err));
  if (back[0] || back[3 * DSPM_PAGE_SIZE - 1]) return 8;
  dspm_snapshot_end(before); dspm_snapshot_end(after);
  DO(dspm_dataset_open(NULL, "renamed", 0, NULL, &ds, &err));
  DO(dspm_dataset_open(NULL, "beside", DSPM_CREATE, NULL, &other, &err));
  DO(dspm_transaction_new(ds, &t, &err)); DO(dspm_transaction_new(other, &second, &err));
  DO(dspm_transaction_reserve(t, DSPM_ANY_LSN, 1000, &lsn, &size, &err));
  {
    dspm_part parts[2] = {{t, pages, content, 2, 6 * 4096, 0}, {second, pages, content, 1, 4096, 0}};
    if (dspm_commit_together(parts, 2, &err) != DSPM_E_USAGE) return 20;
    DO(dspm_transaction_reserve(second, DSPM_ANY_LSN, 1000, &lsn, &size, &err));
    if (dspm_commit_together(parts, 0, &err) != DSPM_E_USAGE) return 21;
    if (dspm_commit_together(NULL, 2, &err) != DSPM_E_USAGE) return 22;
    if (dspm_commit_together(parts, DSPM_PARTS_MAX + 1, &err) != DSPM_E_USAGE) return 23;
    memset(content, 'c', DSPM_PAGE_SIZE);
    DO(dspm_commit_together(parts, 2, &err));
    if (parts[0].lsn != 2 || !parts[1].lsn) return 24;
    DO(dspm_transaction_read(second, 0, 1, back, &err));
    if (back[0] != 'c') return 25;
  }
  dspm_transaction_free(t); dspm_transaction_free(second); dspm_dataset_close(ds); dspm_dataset_close(other);
  DO(dspm_remove(NULL, "beside", &err));
  DO(dspm_remove(NULL, "renamed", &err));
  return dspm_locate(NULL, "renamed", &json, &err) == DSPM_E_NOT_FOUND ? 0 : 9;
}
"""


def prototypes(text: str) -> set[str]:
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return {re.sub(r"\s+", " ", p).strip() for p in re.findall(r"[\w *]+\bdspm_\w+\([^)]*\);", plain)}


def test_declarations_mirror_the_header() -> None:
    mine = prototypes(_native.DECLARATIONS)
    assert len(mine) > 15
    assert mine == prototypes(HEADER.read_text())
    _, lib = _native.load()
    for p in mine:
        name = re.search(r"\bdspm_\w+(?=\()", p)
        assert name and getattr(lib, name.group())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_a_program_in_c(tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    library = _native.library_path()
    flags = ["-Wall", "-Werror", f"-I{HEADER.parent}", f"-L{library.parent}", f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, source, "-o", tmp_path / "program", *flags, "-ldspm"], check=True, timeout=60)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert '"lsn":1' in done.stdout


def test_misuse_is_an_error() -> None:
    ffi, lib = _native.load()
    null = ffi.NULL
    number, out = ffi.new("uint64_t *"), ffi.new("void **")
    for function, arguments in [
        ("dspm_dataset_open", (null, null, 0, null, ffi.new("dspm_dataset **"))),
        ("dspm_dataset_open", (null, ffi.new("char[]", b"a"), 64, null, ffi.new("dspm_dataset **"))),
        ("dspm_dataset_open", (null, ffi.new("char[]", b"\xff"), 0, null, ffi.new("dspm_dataset **"))),
        ("dspm_dataset_open", (null, ffi.new("char[]", b"a"), 0, ffi.new("char[]", b"{"), ffi.new("dspm_dataset **"))),
        ("dspm_dataset_status", (null, ffi.new("char **"))),
        ("dspm_snapshot_begin", (null, number, number, ffi.new("dspm_snapshot **"))),
        ("dspm_snapshot_begin", (null, null, null, null)),
        ("dspm_snapshot_read", (null, 0, 1, out)),
        ("dspm_transaction_new", (null, ffi.new("dspm_transaction **"))),
        ("dspm_transaction_reserve", (null, 0, 0, number, number)),
        ("dspm_transaction_commit", (null, null, null, 0, 0, number)),
        ("dspm_transaction_snapshot", (null, 0, number, number, ffi.new("dspm_snapshot **"))),
        ("dspm_transaction_reserve_at", (null, null)),
        ("dspm_transaction_confirm", (null,)),
        ("dspm_transaction_finish", (null, number, number, ffi.new("dspm_snapshot **"))),
        ("dspm_dataset_hold", (null, 1)),
    ]:
        with pytest.raises(UsageError):
            _native.call(function, *arguments)
    assert lib.dspm_dataset_status(null, ffi.new("char **"), null) == UsageError.exit_code, "no room for the error"
    lib.dspm_free(null)
    lib.dspm_dataset_close(null)
    lib.dspm_snapshot_end(null)
    lib.dspm_transaction_release(null)
    lib.dspm_transaction_free(null)
    assert lib.dspm_dataset_id(null) == 0 and lib.dspm_dataset_is_reserved(null) == 0


def test_the_library_outlives_its_python(cluster: Path) -> None:  # noqa: F811
    """Its thread runs while the interpreter takes everything down, handles still open."""
    code = (
        "import dspm; ds = dspm.Dataset.open('left-open', create=True); s = ds.snapshot(); t = ds.transaction(); "
        "t.__enter__(); t.write(0, bytes(4096)); t.commit()"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        Dataset.open("x")
    with pytest.raises(UsageError, match="gone"):
        Dataset.open("x", config=tmp_path / "gone.toml")
