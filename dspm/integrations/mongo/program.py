"""The program that is to keep its files in the cluster: where it is, and which WiredTiger is in it."""

from __future__ import annotations

import mmap
import re
import shutil
from pathlib import Path

from dspm.errors import UsageError

_VERSION = re.compile(rb"WiredTiger (\d{1,3}\.\d{1,3}\.\d{1,3}): \(")
"""What wiredtiger_version() answers; the text stands in every program and library that WiredTiger is built into."""


def find(program: str) -> Path:
    """The program of that name or path.

    Raises:
        UsageError: there is none.
    """
    found = shutil.which(program) or (program if Path(program).is_file() else None)
    if found is None:
        raise UsageError(
            f"there is no {program} here", "name the program with --program PATH, or its --wiredtiger version"
        )
    return Path(found).resolve()


def wiredtiger_version(program: Path) -> str:
    """The version of WiredTiger that a program, or a library, was built with.

    Raises:
        UsageError: it has none, or more than one.
    """
    hint = "give --program the library that it is linked to (`ldd` shows it), or say --wiredtiger X.Y.Z"
    try:
        with program.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = {m.group(1).decode() for m in _VERSION.finditer(content)}
    except (OSError, ValueError) as e:
        raise UsageError(f"{program} cannot be read: {e}", hint) from None
    if len(found) != 1:
        what = "no WiredTiger" if not found else f"WiredTiger {' and '.join(sorted(found))}"
        raise UsageError(f"{program} has {what} in it", hint)
    return found.pop()
