"""The first replies of their kind, read by many threads at once, as `dspm status` does with many nodes."""

from __future__ import annotations

import subprocess
import sys

# A module that is loaded anew has classes of which nothing is known yet.
FIRST_REPLIES = """
import importlib, sys, threading, time
from dspm.netram import messages

sys.setswitchinterval(1e-6)
SET = b'{"id": 1, "generation": 1, "state": "active", "primary": "n", "members": [], "history": 3}'
REPLY = b'{"datasets": [], "more": false, "count": 1, "view": {"version": 1, "nodes": [], "sets": [' + SET + b']}}'

def read(start, late_s):
    start.wait()
    until = time.perf_counter() + late_s
    while time.perf_counter() < until:
        pass
    assert messages.decode(REPLY, messages.Listing).view.sets[0].history == 3

for _ in range(ROUNDS):
    importlib.reload(messages)
    start = threading.Event()
    threads = [threading.Thread(target=read, args=(start, i * 3e-5)) for i in range(8)]
    for t in threads:
        t.start()
    start.set()
    for t in threads:
        t.join()
"""


def test_first_replies_in_many_threads() -> None:
    """Guards against a process that ends with SIGSEGV: msgspec shows other threads what it knows of a class so far."""
    code = FIRST_REPLIES.replace("ROUNDS", "150")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
