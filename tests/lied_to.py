"""A program whose nodes lie: it reads and writes, and says what came of it. Commands and answers are lines.

Every page that it writes carries a checksum of its own, so that a page that nobody wrote shows.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from collections import Counter

import xxhash

from dspm.errors import DspmError
from dspm.txn import PAGE_SIZE, Dataset, PageNo

PAGES = 24
HANGS_S = 30
"""A call that takes longer ends the program, with a traceback: some ten times what it may take at the most."""


def page(r: random.Random) -> bytes:
    content = r.randbytes(PAGE_SIZE - 8)
    return content + xxhash.xxh3_64_digest(content)


def is_page(p: bytes) -> bool:
    return not any(p) or xxhash.xxh3_64_digest(p[:-8]) == p[-8:]


def write(ds: Dataset, r: random.Random) -> None:
    with ds.transaction(wait=0.2) as t:
        for _ in range(r.randint(1, 4)):
            t.write(PageNo(r.randrange(PAGES)), page(r))


def read(ds: Dataset, r: random.Random) -> int:
    """How many pages were none that anybody wrote."""
    bad = 0
    with ds.snapshot() as s:
        for n in range(min(PAGES, s.size // PAGE_SIZE)):
            bad += not is_page(s.read(PageNo(n)))
    return bad


def run(seconds: float, seed: int) -> dict[str, int]:
    r, came, ds = random.Random(seed), Counter[str](), None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        try:
            if ds is None or r.random() < 0.1:
                ds = None  # other settings make another client: it asks where everything is
                ds = Dataset.open("lied-about", create=True, settings={"cache.size": f"{r.randint(1, 8)}MiB"})
            elif r.random() < 0.5:
                write(ds, r)
                came["written"] += 1
            else:
                came["bad pages"] += read(ds, r)
                came["read"] += 1
        except DspmError as e:
            came[type(e).__name__] += 1
    faulthandler.cancel_dump_traceback_later()
    return dict(came)


def work(name: str) -> dict[str, int]:
    """What has to go well, of a dataset that nobody lies about any more."""
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    r = random.Random(1)
    with Dataset.open(name, create=True) as ds:
        for _ in range(20):
            write(ds, r)
        bad = read(ds, r)
    faulthandler.cancel_dump_traceback_later()
    return {"bad pages": bad}


if __name__ == "__main__":
    for line in sys.stdin:
        match line.split(maxsplit=2):
            case ["run", seconds, seed]:
                print(json.dumps(run(float(seconds), int(seed))), flush=True)
            case ["work", name]:
                print(json.dumps(work(name)), flush=True)
