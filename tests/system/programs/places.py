"""One process, several clusters: NAME CONFIG.... Writes each one's number into its database of that name, reads all."""

from __future__ import annotations

import json
import sys
from urllib.parse import quote

import dspm


def main() -> None:
    name, *configs = sys.argv[1:]
    connections = [dspm.connect(f"file:{quote(name)}?config={quote(c)}") for c in configs]
    for number, db in enumerate(connections):
        db.set_busy_timeout(30_000)
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES(?)", (number,))
    rows = [[row[0] for row in db.execute("SELECT a FROM t")] for db in connections]
    seen = [json.loads(db.execute("PRAGMA dspm_status").get)["config"] for db in connections]
    print(json.dumps({"rows": rows, "configs": seen}))


if __name__ == "__main__":
    main()
