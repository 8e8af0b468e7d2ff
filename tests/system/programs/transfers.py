"""Moves money between two databases until it is ended: NAME OTHER PRAGMA WRITER. Says what `ledger` says.

Each transfer is one transaction over both: it moves an amount and adds a row to the ledger of each. PRAGMA is run for
each database first ("synchronous=OFF": no super-journal).
"""

from __future__ import annotations

import random
import signal
import sys
import time

import apsw

import dspm
from dspm import _native

PAUSE_S = 0.02

name, other, pragma, writer = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def opened() -> apsw.Connection:
    db = dspm.connect(name)
    db.set_busy_timeout(30_000)
    db.execute("ATTACH ? AS aux", (other,))
    for schema in ("main", "aux"):
        db.execute(f"PRAGMA {schema}.{pragma}").fetchall()
    return db


def transfer(db: apsw.Connection, expected: int | None) -> int | None:
    """Commits the next transfer. Returns the number of the one after it; after an error, the number that was tried."""
    stage = "BEGIN"
    n = expected
    try:
        db.execute("BEGIN IMMEDIATE")
        stage = "SELECT"
        seq = int(db.execute("SELECT coalesce(max(seq), -1) + 1 FROM main.ledger").get)
        n = int(db.execute("SELECT coalesce(max(n), -1) + 1 FROM main.ledger WHERE writer = ?", (writer,)).get)
        if expected is not None and n != expected:
            say(f"= {expected}")
            assert n == expected + 1
        stage = "UPDATE"
        amount = random.randint(-20, 20)
        for schema, change in (("main", -amount), ("aux", amount)):
            account = random.randrange(20)
            db.execute(f"UPDATE {schema}.account SET balance = balance + ? WHERE id = ?", (change, account))
            db.execute(f"INSERT INTO {schema}.ledger VALUES(?, ?, ?, randomblob(200))", (seq, writer, n))
        stage = "COMMIT"
        db.execute("COMMIT")
    except apsw.Error as e:
        reason = _native.last_error().replace("\n", " | ")
        say(f"! {stage} {getattr(e, 'extendedresult', 0)} {reason} ({e})")
        if db.in_transaction:
            db.execute("ROLLBACK")
        time.sleep(PAUSE_S)
        return n
    say(f"+ {n} {seq}")
    assert n is not None
    return n + 1


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        try:
            db = opened()
            break
        except apsw.Error as e:
            print(e, file=sys.stderr)
            time.sleep(PAUSE_S)
    say("ready")
    n: int | None = None
    while True:
        n = transfer(db, n)


if __name__ == "__main__":
    main()
