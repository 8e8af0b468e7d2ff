"""The local disk: what file system a path is on, and how fast a sync is right now."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

SYNC_BYTES = 4096
SYNC_SAMPLES = 64
MOUNT_TABLE = Path("/proc/self/mountinfo")


def file_system_of(path: Path) -> str:
    """The type of the file system that holds `path`, as the kernel's mount table names it."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNT_TABLE.read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return "unknown"


def fdatasync_p50_us(directory: Path) -> float:
    """The disk's mood: the median time in µs to overwrite 4 KiB of a file and fdatasync it."""
    directory.mkdir(parents=True, exist_ok=True)
    block = os.urandom(SYNC_BYTES)
    times_ns = []
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
        for _ in range(SYNC_SAMPLES):
            start_ns = time.perf_counter_ns()
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
            times_ns.append(time.perf_counter_ns() - start_ns)
    return statistics.median(times_ns) / 1000
