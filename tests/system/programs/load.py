"""Commits faster than a disk takes them: `load NAME SECONDS WRITER BYTES ROWS`.

Each transaction replaces one of the writer's ROWS rows by its number n and BYTES that follow from writer and n. Prints
the numbers that were acknowledged last, and the longest wait, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time

import apsw

import dspm
from dspm import _native


def content(writer: int, n: int, size: int) -> bytes:
    """What transaction n of a writer stores."""
    return random.Random(f"{writer}-{n}").randbytes(size)


def load(name: str, seconds: float, writer: int, size: int, rows: int) -> None:
    db = dspm.connect(name)
    db.set_busy_timeout(60_000)
    errors: list[str] = []
    last: dict[int, int] = {}
    n, longest, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end and not errors:
        started = time.monotonic()
        try:
            db.execute("BEGIN IMMEDIATE")
            row = (writer, n % rows, n, content(writer, n, size))
            db.execute("INSERT OR REPLACE INTO load(writer, slot, n, content) VALUES (?, ?, ?, ?)", row)
            db.execute("COMMIT")
            last[n % rows] = n
            n += 1
        except apsw.Error as e:
            errors.append(f"{type(e).__name__} {e.extendedresult}: {e}; {_native.last_error()}")
            if db.in_transaction:
                db.execute("ROLLBACK")
        longest = max(longest, time.monotonic() - started)
    print(json.dumps({"count": n, "last": last, "longest": longest, "errors": errors}))


def verify(name: str) -> None:
    """Every row's content is what its number says; prints the numbers."""
    db = dspm.connect(name)
    found: dict[int, dict[int, int]] = {}
    for writer, slot, n, stored in db.execute("SELECT writer, slot, n, content FROM load"):
        assert stored == content(writer, n, len(stored)), f"writer {writer}, transaction {n}: other bytes"
        found.setdefault(writer, {})[slot] = n
    assert db.execute("PRAGMA integrity_check").get == "ok"
    print(json.dumps(found))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        verify(sys.argv[1])
    else:
        load(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:6]))
