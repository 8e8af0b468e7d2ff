"""Transfers between accounts, for a time: `transfer NAME MODE THREADS SECONDS SEED`, `read NAME SECONDS`.

Each transfer moves money between two accounts and raises the count of both. Prints JSON when it is over.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from traceback import format_tb

import apsw

import dspm
from dspm import _native

ACCOUNTS = 50
ATOMIC = (
    "UPDATE account SET moves = moves + 1, balance = balance + CASE id WHEN ?1 THEN -?3 ELSE ?3 END"
    " WHERE id IN (?1, ?2)"
)
HALF = "UPDATE account SET moves = moves + 1, balance = balance + ?2 WHERE id = ?1"


def connect(name: str) -> apsw.Connection:
    db = dspm.connect(name)
    db.set_busy_timeout(30_000)
    return db


def once(db: apsw.Connection, mode: str, source: int, target: int, amount: int) -> None:
    if mode == "autocommit":
        db.execute(ATOMIC, (source, target, amount))
        return
    db.execute("BEGIN IMMEDIATE" if mode == "immediate" else "BEGIN")
    try:
        balance = db.execute("SELECT balance FROM account WHERE id = ?", (source,)).get
        amount = min(amount, balance)
        db.execute(HALF, (source, -amount))
        db.execute(HALF, (target, amount))
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def transfers(name: str, mode: str, seconds: float, seed: int, counts: dict[int, int]) -> None:
    db, chance, end, done = connect(name), random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        source, target = chance.sample(range(ACCOUNTS), 2)
        while True:
            try:
                once(db, mode, source, target, chance.randint(0, 20))
                break
            except apsw.BusyError:
                if mode != "deferred":  # a reader that comes to write too late has to begin again; no other does
                    raise
        done += 1
        counts[seed] = done
    db.close()


def transfer(name: str, mode: str, threads: int, seconds: float, seed: int) -> None:
    counts: dict[int, int] = {}
    errors: list[str] = []

    def run(number: int) -> None:
        try:
            transfers(name, mode, seconds, number, counts)
        except BaseException as e:
            code = getattr(e, "extendedresult", 0)
            errors.append(
                f"{type(e).__name__} {code}: {e}; {_native.last_error()}; {''.join(format_tb(e.__traceback__)[-1:])}"
            )

    running = [threading.Thread(target=run, args=(seed * 100 + i,)) for i in range(threads)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    print(json.dumps({"counts": list(counts.values()), "errors": errors}))


def read(name: str, seconds: float) -> None:
    """Sums in one statement, and account by account in one transaction."""
    db, end = connect(name), time.monotonic() + seconds
    sums: set[int] = set()
    moves = [0]
    while time.monotonic() < end:
        total, moved = next(iter(db.execute("SELECT sum(balance), sum(moves) FROM account")))
        sums.add(total)
        moves.append(moved)
        db.execute("BEGIN")
        parts = [db.execute("SELECT balance FROM account WHERE id = ?", (i,)).get for i in range(ACCOUNTS)]
        moves.append(db.execute("SELECT sum(moves) FROM account").get)
        db.execute("COMMIT")
        sums.add(sum(parts))
    back = sum(b < a for a, b in zip(moves, moves[1:], strict=False))
    print(json.dumps({"sums": sorted(sums), "odd": sum(m % 2 for m in moves), "back": back, "reads": len(moves)}))


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(sys.argv[2], float(sys.argv[3]))
    else:
        transfer(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
