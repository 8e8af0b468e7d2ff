"""Forks while threads work: NAME CHILDREN. Prints how each child ended and what the parent found afterwards.

The threads open datasets through many clients and commit to them, or are refused. They use no SQLite: its mutexes may
be held at a fork by any thread, and SQLite's rule is that a child of a process with busy threads does not use it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading

from dspm import Dataset
from dspm.errors import UsageError
from dspm.txn import PageNo

THREADS = 4
CLIENTS = 50  # of each thread; every one stays to the end of the process
CHILD_SECONDS = 60
PAGE = 4096

name, children = sys.argv[1], int(sys.argv[2])
stop = threading.Event()
failed: list[str] = []
commits = [0] * THREADS


def work(number: int) -> None:
    try:
        while not stop.is_set():
            if number % 2:  # no client comes of it, but the configuration is read under the lock of all clients
                with contextlib.suppress(UsageError):
                    Dataset.open(name, settings={"cache.size": "much"})
                commits[number] += 1
                continue
            settings = {"cache.size": f"{1024 + number * CLIENTS + commits[number] % CLIENTS}KiB"}
            with Dataset.open(f"{name}-{number}", create=True, settings=settings) as d:
                with d.transaction() as t:
                    t.write(PageNo(0), bytes([commits[number] % 255 + 1]) * PAGE)
                commits[number] += 1
    except Exception as e:
        failed.append(f"{number}: {e!r}")


def sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return count


def child(number: int) -> int:
    with Dataset.open(f"{name}-child-{number}", create=True) as d:
        with d.transaction() as t:
            t.write(PageNo(0), b"c" * PAGE)
        with d.snapshot() as s:
            return 0 if bytes(s.read(PageNo(0))) == b"c" * PAGE else 4


def main() -> None:
    with Dataset.open(f"{name}-still", create=True) as d, d.transaction() as t:
        t.write(PageNo(0), b"s" * PAGE)
    inherited = os.fork()
    if inherited == 0:
        os._exit(sockets())
    kept = os.waitstatus_to_exitcode(os.waitpid(inherited, 0)[1])
    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    ends = []
    for number in range(children):
        pid = os.fork()
        if pid == 0:
            signal.alarm(CHILD_SECONDS)  # a child that hangs is a failure, not a test that never ends
            code = 3
            try:
                code = child(number)
            finally:
                os._exit(code)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"kept": kept, "ends": ends, "failed": failed, "worked": [c > 0 for c in commits]}))


if __name__ == "__main__":
    main()
