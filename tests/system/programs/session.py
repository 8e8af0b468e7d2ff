"""Runs the statements that come as lines of JSON on stdin, and answers each with a line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import apsw

import dspm
from dspm import _native

BUSY_TIMEOUT_MS = 30_000

connections: dict[str, apsw.Connection] = {}


def run(do: str, text: str, arguments: list[Any], at: str) -> list[list[Any]]:
    if do == "open":
        connections[at] = dspm.connect(text)
        connections[at].set_busy_timeout(BUSY_TIMEOUT_MS)
    elif do == "close":
        connections.pop(at).close()
    elif do == "busy":
        connections[at].set_busy_timeout(int(text))
    else:
        return [list(row) for row in connections[at].execute(text, arguments)]
    return []


def main() -> None:
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"rows": run(**json.loads(line))}
        except Exception as e:
            answer = {"code": getattr(e, "extendedresult", 0) or 0, "text": str(e), "reason": _native.last_error()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
