"""Passes a turn through pipes: NAME ROUNDS IN OUT FIRST WRITES. Prints how often it did not see what it was told of.

With the turn comes the number of the last acknowledged row; whoever gets it begins a transaction and must find it.
"""

from __future__ import annotations

import json
import os
import sys

import dspm

name, rounds, receive, send, first, writes = sys.argv[1], *map(int, sys.argv[2:])


def main() -> None:
    db = dspm.connect(name)
    db.set_busy_timeout(30_000)
    turns, stale, row = os.fdopen(receive, "rb"), 0, -1
    for number in range(rounds):
        if number or not first:
            told = int(turns.readline())
            row = db.execute("SELECT max(n) FROM turn").get
            stale += row < told
        if writes:
            row += 1
            db.execute("INSERT INTO turn VALUES(?)", (row,))
        if first or number + 1 < rounds:  # nobody waits for the last one
            os.write(send, b"%d\n" % row)
    print(json.dumps({"stale": stale, "last": row}))


if __name__ == "__main__":
    main()
