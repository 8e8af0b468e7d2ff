"""Forks with a database open: NAME WAY OPEN. The child ends by WAY, the parent goes on. Prints what the parent found.

OPEN is 1 if the parent has a transaction open when it forks. WAY: _exit; exit; own: the child uses a connection of its
own first; inherited: it tries to write through the parent's, which must fail.
"""

from __future__ import annotations

import json
import os
import sys

import apsw

import dspm

name, way, is_open = sys.argv[1], sys.argv[2], sys.argv[3] == "1"


def child(db: apsw.Connection) -> None:
    if way == "_exit":
        os._exit(0)
    if way == "own":
        own = dspm.connect(name)
        own.set_busy_timeout(30_000)
        if is_open:  # the parent writes: reading has to do
            assert own.execute("SELECT count(*) FROM t").get == 1
        else:
            own.execute("INSERT INTO t VALUES(100, 'child')")
        own.close()
    if way == "inherited":
        try:
            db.execute("INSERT INTO t VALUES(200, 'inherited')")
            if db.in_transaction:
                db.execute("COMMIT")
        except apsw.Error:
            sys.exit(0)
        os._exit(3)
    sys.exit(0)


def main() -> None:
    db = dspm.connect(name)
    db.set_busy_timeout(30_000)
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, who TEXT)")
    db.execute("INSERT INTO t VALUES(1, 'before')")
    if is_open:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t VALUES(2, 'open')")
    pid = os.fork()
    if pid == 0:
        child(db)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    db.execute("INSERT INTO t VALUES(3, 'after')")
    if is_open:
        db.execute("COMMIT")
    db.execute("INSERT INTO t VALUES(4, 'later')")
    rows = [row[0] for row in db.execute("SELECT a FROM t")]
    print(json.dumps({"child": status, "rows": rows, "check": db.pragma("integrity_check")}))


if __name__ == "__main__":
    main()
