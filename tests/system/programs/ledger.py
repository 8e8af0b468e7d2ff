"""Commits rows to a ledger until it is ended: NAME WRITER. Says `ready`, then a line for each row.

`+ N SEQ` after COMMIT returned; `! STAGE CODE REASON` when a statement failed; `= N` if the row was there all the same.
The next number is looked up inside the write transaction: before it, a commit in doubt may still be on its way.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import apsw

import dspm
from dspm import _native

SCHEMA = "CREATE TABLE IF NOT EXISTS ledger(seq INTEGER PRIMARY KEY, writer INTEGER, n INTEGER, pad BLOB)"
PAUSE_S = 0.02

name, writer = sys.argv[1], int(sys.argv[2])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(stage: str, e: apsw.Error) -> None:
    reason = _native.last_error().replace("\n", " | ")
    say(f"! {stage} {getattr(e, 'extendedresult', 0)} {reason} ({e})")


def append(db: apsw.Connection, expected: int | None) -> int | None:
    """Commits the next row. Returns the number of the one after it; after an error, the number that was tried."""
    stage = "BEGIN"
    n = expected
    try:
        db.execute("BEGIN IMMEDIATE")
        stage = "SELECT"
        seq = int(db.execute("SELECT coalesce(max(seq), -1) + 1 FROM ledger").get)
        n = int(db.execute("SELECT coalesce(max(n), -1) + 1 FROM ledger WHERE writer = ?", (writer,)).get)
        if expected is not None and n != expected:
            say(f"= {expected}")
            assert n == expected + 1
        stage = "INSERT"
        db.execute("INSERT INTO ledger VALUES(?, ?, ?, randomblob(200))", (seq, writer, n))
        stage = "COMMIT"
        db.execute("COMMIT")
    except apsw.Error as e:
        fail(stage, e)
        if db.in_transaction:
            db.execute("ROLLBACK")
        time.sleep(PAUSE_S)
        return n
    say(f"+ {n} {seq}")
    assert n is not None
    return n + 1


def main() -> None:
    if os.environ.get("SIGPIPE") == "default":  # Python itself ignores it
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    db = dspm.connect(name)
    db.set_busy_timeout(30_000)
    while True:
        try:
            db.execute(SCHEMA)
            break
        except apsw.Error as e:
            print(e, file=sys.stderr)
            time.sleep(PAUSE_S)
    say("ready")
    n: int | None = None
    while True:
        n = append(db, n)


if __name__ == "__main__":
    main()
