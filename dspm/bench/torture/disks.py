"""Disks of limited size for the nodes' data: tmpfs mounts, which can be filled up. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from dspm.errors import DspmError

SIZE = "192m"
_FILLER = "filler"
_BLOCK = bytes(1 << 20)


def mount(path: Path) -> None:
    """Puts a small file system in the place of a directory, with what was in it."""
    beside = path.with_name(f"{path.name}.moved")
    path.rename(beside)
    path.mkdir(mode=0o700)
    _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "dspm-torture", str(path))
    shutil.copytree(beside, path, dirs_exist_ok=True)
    shutil.rmtree(beside)


def unmount_below(directory: Path) -> None:
    """Takes all mounts below a directory away."""
    root = f"{directory.resolve()}/"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        at = line.split()[1].encode().decode("unicode_escape")
        if at.startswith(root):
            _run("umount", "-l", at)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise DspmError(f"`{' '.join(command)}` failed: {done.stderr.strip()[:200]}", "a full disk needs root")


def fill(path: Path) -> None:
    """Takes what is free on the file system."""
    with open(path / _FILLER, "ab", 0) as f, contextlib.suppress(OSError):
        size = len(_BLOCK)
        while size:
            try:
                f.write(_BLOCK[:size])
            except OSError:
                size //= 2


def free(path: Path) -> None:
    """Gives it back."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path / _FILLER)
