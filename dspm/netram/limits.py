"""What this machine has: its memory and the room for arenas."""

from __future__ import annotations

import os
from pathlib import Path

from dspm.errors import FullError, UsageError
from dspm.netram.node import SHARED_MEMORY


def human(size: float) -> str:
    """Bytes in the words of the config file."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}" if unit == "bytes" else f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


def machine_memory_bytes() -> int:
    """Memory of this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(nodes: int, memory_bytes: int) -> None:
    """Refuses what the machine does not have."""
    has = machine_memory_bytes()
    if nodes * memory_bytes > has:
        what = f"{nodes} nodes of {human(memory_bytes)}" if nodes > 1 else f"a node of {human(memory_bytes)}"
        raise UsageError(f"{what} take more than this machine's memory of {human(has)}", "give a smaller --memory")


def check_room(missing_arenas: int, memory_bytes: int) -> None:
    """Refuses arenas for which shared memory has no room: touching them later would kill the node."""
    at = os.statvfs(SHARED_MEMORY)
    free = at.f_bavail * at.f_frsize
    need = missing_arenas * memory_bytes
    if need > free:
        arenas = f"{missing_arenas} arenas of {human(memory_bytes)}"
        raise FullError(
            f"{SHARED_MEMORY} has {human(free)} left, {arenas} need {human(need)}",
            "give a smaller --memory, or enlarge it (mount -o remount,size=…; docker run --shm-size=…)",
        )
