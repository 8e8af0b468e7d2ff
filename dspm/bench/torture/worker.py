"""A client process: `worker HISTORY PROCESS ROLE WORKLOAD DATABASE SEED`.

Roles: `setup` makes the tables, `work` runs transactions until SIGTERM, `scan` reads all pages once, `final` writes all
rows into the history. Workloads: `bank`, transfers between accounts, and `list`, transactions that append unique
values to lists and read others. What a statement before COMMIT fails with left nothing; what COMMIT fails with left
nothing either, unless it says that the outcome is unknown: that is the promise, and the checker holds it to it.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

import dspm
from dspm import _native
from dspm.bench.torture.history import FAIL, FINAL, INFO, INVOKE, OK, READ, SCAN, SETUP, TRANSFER, TXN, Recorder

ACCOUNTS = 8
START = 100
KEYS = 4
KEYS_S = 3.0
"""So long transactions use the same KEYS lists; then the next ones, so that none gets long."""
PAUSE_S = 0.02
BUSY_MS = 5_000
ROWS_A_LINE = 500
_DEATH_SIGNAL = 1

_SCHEMA = {
    "bank": """
        CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB);
        CREATE TABLE transfer(seq INTEGER PRIMARY KEY, id TEXT, source INTEGER, target INTEGER, amount INTEGER);
    """,
    "list": """
        CREATE TABLE entry(seq INTEGER PRIMARY KEY, key INTEGER, value INTEGER);
        CREATE INDEX by_key ON entry(key);
    """,
}


def _connect(database: str) -> apsw.Connection:
    """Whoever gives up early may find nobody at first; the run has a deadline for what nobody ever finds."""
    while True:
        try:
            return dspm.connect(database)
        except apsw.Error as e:
            print(f"{database}: {e}", file=sys.stderr)
            time.sleep(PAUSE_S)


class Worker:
    """One connection, one operation at a time."""

    def __init__(self, recorder: Recorder, process: str, database: str, seed: int) -> None:
        self._recorder = recorder
        self._process = process
        self._database = database
        self._chance = random.Random(seed)
        self._seed = seed
        self._count = 0
        self._stage = ""
        self.db = _connect(database)
        self.db.set_busy_timeout(BUSY_MS)

    def do(self, operation: str, value: Any, steps: Callable[[], Any]) -> bool:
        """Runs `steps`, which returns what is acknowledged, between an invocation and its completion."""
        self._recorder.note(INVOKE, operation, value, self._database)
        self._stage = "BEGIN"
        try:
            result = steps()
        except apsw.Error as e:
            said = f"{self._stage}: {_reason(e)}"
            unknown = self._stage == "COMMIT" and "outcome" in said
            self._recorder.note(INFO if unknown else FAIL, operation, value, self._database, said)
            self._roll_back()
            return False
        self._recorder.note(OK, operation, result, self._database)
        return True

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def _begin(self, text: str) -> None:
        self.db.execute(text)
        self._stage = "statement"

    def _commit(self) -> None:
        self._stage = "COMMIT"
        self.db.execute("COMMIT")

    def bank(self) -> bool:
        """A transfer, or now and then a read of all balances."""
        if self._chance.random() < 0.25:
            return self.do(READ, None, self._balances)
        source, target = self._chance.sample(range(ACCOUNTS), 2)
        self._count += 1
        value = {
            "id": f"{self._process}:{self._count}",
            "from": source,
            "to": target,
            "amount": self._chance.randint(1, 9),
        }
        return self.do(TRANSFER, value, lambda: self._transfer(value))

    def _transfer(self, value: dict[str, Any]) -> dict[str, Any]:
        self._begin("BEGIN IMMEDIATE")
        # Read, then written: an update that was lost would show.
        for account, change in ((value["from"], -value["amount"]), (value["to"], value["amount"])):
            balance = self.db.execute("SELECT balance FROM account WHERE id = ?", (account,)).get
            self.db.execute("UPDATE account SET balance = ? WHERE id = ?", (balance + change, account))
        row = value["id"], value["from"], value["to"], value["amount"]
        self.db.execute("INSERT INTO transfer(id, source, target, amount) VALUES(?, ?, ?, ?)", row)
        seq = self.db.last_insert_rowid()
        self._commit()
        return {**value, "seq": seq}

    def _balances(self) -> dict[str, Any]:
        self._begin("BEGIN")
        balances = [b for (b,) in self.db.execute("SELECT balance FROM account ORDER BY id")]
        seq = self.db.execute("SELECT coalesce(max(seq), 0) FROM transfer").get
        self.db.execute("COMMIT")
        return {"seq": seq, "balances": balances}

    def lists(self) -> bool:
        """A transaction of one to four appends and reads."""
        first = int(time.monotonic() / KEYS_S) * KEYS
        steps: list[list[Any]] = []
        for _ in range(self._chance.randint(1, 4)):
            key = first + self._chance.randrange(KEYS)
            if self._chance.random() < 0.5:
                self._count += 1
                steps.append(["append", key, self._seed * 1_000_000 + self._count])
            else:
                steps.append(["r", key, None])
        return self.do(TXN, steps, lambda: self._txn(steps))

    def _txn(self, steps: list[list[Any]]) -> list[list[Any]]:
        writes = any(s[0] == "append" for s in steps)
        # Now and then as a reader that comes to write late: it has to begin again when somebody was faster.
        self._begin("BEGIN IMMEDIATE" if writes and self._chance.random() < 0.8 else "BEGIN")
        done = []
        for kind, key, value in steps:
            if kind == "append":
                self.db.execute("INSERT INTO entry(key, value) VALUES(?, ?)", (key, value))
            else:
                value = [v for (v,) in self.db.execute("SELECT value FROM entry WHERE key = ? ORDER BY seq", (key,))]
            done.append([kind, key, value])
        self._commit()
        return done

    def setup(self, workload: str) -> None:
        """Makes the tables."""
        with self.db:
            self.db.execute(_SCHEMA[workload])
            if workload == "bank":  # wide rows: the accounts lie on several pages
                rows = [(i, START) for i in range(ACCOUNTS)]
                self.db.executemany("INSERT INTO account VALUES(?, ?, randomblob(900))", rows)
        made = {"workload": workload, **({"accounts": ACCOUNTS, "balance": START} if workload == "bank" else {})}
        self._recorder.note(OK, SETUP, made, self._database)

    def scan(self) -> bool:
        """Reads every page of the database."""
        return self.do(SCAN, None, lambda: self.db.execute("PRAGMA integrity_check").get)

    def final(self, workload: str) -> None:
        """Writes all rows into the history, as of one snapshot; the last line says what integrity_check found."""
        note, where = self._recorder.note, self._database
        note(INVOKE, FINAL, None, where)
        self.db.execute("BEGIN")
        for table in ("transfer", "account") if workload == "bank" else ("entry",):
            columns = {"transfer": "*", "account": "id, balance", "entry": "key, value"}[table]
            rows = self.db.execute(f"SELECT {columns} FROM {table} ORDER BY {'id' if table == 'account' else 'seq'}")
            for part in _parts(rows):
                note(INFO, FINAL, {"table": table, "rows": part}, where)
        found = self.db.execute("PRAGMA integrity_check").get
        self.db.execute("COMMIT")
        note(OK, FINAL, {"integrity": found}, where)


def _reason(e: apsw.Error) -> str:
    """SQLite's code, and the VFS's own words; who only has to wait for another one gets none from it."""
    code = getattr(e, "extendedresult", 0)
    words = str(e) if isinstance(e, apsw.BusyError) and code == apsw.SQLITE_BUSY else _native.last_error() or str(e)
    return f"{type(e).__name__} {code}: {words}"


def _parts(rows: Any) -> Iterator[list[Any]]:
    part: list[Any] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS_A_LINE:
            yield part
            part = []
    yield part


def _work(worker: Worker, workload: str) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    one = worker.bank if workload == "bank" else worker.lists
    pause = random.Random(os.getpid())
    while not ended:
        one()
        time.sleep(pause.uniform(0.5, 1.5) * PAUSE_S)


def main(arguments: list[str]) -> None:
    """Plays its role."""
    # It must not outlive the run, however that ends.
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    history, process, role, workload, database, seed = arguments
    worker = Worker(Recorder(Path(history), process), process, database, int(seed))
    if role == "setup":
        worker.setup(workload)
    elif role == "work":
        _work(worker, workload)
    elif role == "scan":
        sys.exit(not worker.scan())
    else:
        worker.final(workload)


if __name__ == "__main__":
    main(sys.argv[1:])
