"""Reads beside a writer of the same process: `beside NAME`.

One thread commits rows of 100 kB until one is refused, another begins and reads. Prints how many were acknowledged, the
result code of the refusal, and how many transactions the reader read while the refused commit waited, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading

import apsw

import dspm

ROWS_MAX = 2000
"""Far more than there is room for."""


class Beside:
    """What the two threads know of each other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged = 0
        self.refusal = 0
        self.reads = 0
        self.over = threading.Event()

    def write(self) -> None:
        try:
            db = dspm.connect(self.name)
            while self.acknowledged < ROWS_MAX:
                self.reads = 0
                db.execute("INSERT INTO load VALUES (0, ?1, ?1, randomblob(100000))", (self.acknowledged,))
                self.acknowledged += 1
        except apsw.Error as e:
            self.refusal = e.extendedresult
        finally:
            self.over.set()

    def read(self) -> None:
        db = dspm.connect(self.name)
        while not self.over.is_set():
            before = self.acknowledged
            count = db.execute("SELECT count(*) FROM load").get
            assert before <= count <= self.acknowledged + 1, f"{count} rows, {before} to {self.acknowledged} told"
            self.reads += 1


if __name__ == "__main__":
    beside = Beside(sys.argv[1])
    writer = threading.Thread(target=beside.write)
    writer.start()
    beside.read()
    writer.join()
    print(json.dumps({"acknowledged": beside.acknowledged, "refusal": beside.refusal, "reads": beside.reads}))
