"""SQLite's own test programs: their source from Debian's package, compiled against the SQLite of this machine.

The source package has the version of the installed libsqlite3, so header, library and programs belong together. It is
kept in the build directory and never part of this repository. Nothing of the machine's package lists is changed: apt
works in a directory of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
PROGRAMS = {"mptest": "mptest/mptest.c", "speedtest1": "test/speedtest1.c"}
LOADER = Path(__file__).with_name("load_vfs.c")


class Missing(Exception):
    """Something that is needed is not to be had here; the text says what and where from."""


def tree(build: Path) -> Path:
    """The unpacked source: what SQLITE_SOURCE names, what was fetched before, or what apt fetches now."""
    named = os.environ.get("SQLITE_SOURCE")
    if named:
        return _checked(Path(named), f"SQLITE_SOURCE={named} is no source tree of SQLite")
    unpacked = build / "source"
    if not unpacked.exists():
        _unpack(_fetch(build), unpacked)
    return _checked(unpacked, f"{unpacked} is no source tree of SQLite; delete it and try again")


def compiled(source: Path, build: Path) -> dict[str, Path]:
    """The programs, each linked to the loader of the VFS and to the machine's libsqlite3."""
    made = {}
    for name, file in PROGRAMS.items():
        objects = []
        for stem, origin, options in (
            (name, source / file, ["-DHAVE_USLEEP", "-Dmain=tested_main"]),
            ("load_vfs", LOADER, []),
        ):
            objects.append(str(build / f"{stem}.o"))
            _compile(["-O2", *options, "-c", str(origin), "-o", objects[-1]])
        made[name] = build / name
        _compile([*objects, "-lsqlite3", "-o", str(made[name])])
    return made


def _checked(root: Path, why: str) -> Path:
    if not all((root / file).is_file() for file in PROGRAMS.values()):
        raise Missing(why)
    return root


def _compile(arguments: list[str]) -> None:
    done = subprocess.run(["cc", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        hint = "" if "sqlite3.h" not in done.stderr else "\nhint: apt-get install libsqlite3-dev"
        raise Missing(f"cc {' '.join(arguments)} failed:\n{done.stderr.strip()}{hint}")


def _fetch(build: Path) -> Path:
    """The archive with the source, by `apt-get source`."""
    release = platform.freedesktop_os_release()
    if not shutil.which("apt-get") or release.get("ID") != "debian":
        raise Missing(
            "the source of SQLite comes from Debian's package and this is not Debian; "
            "unpack sqlite-src of the installed version and set SQLITE_SOURCE to its directory"
        )
    work = build / "apt"
    for sub in ("lists/partial", "cache/archives/partial"):
        (work / sub).mkdir(parents=True, exist_ok=True)
    sources = work / "sources.list"
    sources.write_text(f"deb-src {MIRROR} {release['VERSION_CODENAME']} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "Acquire::Retries": 2,
        "Acquire::http::Timeout": 20,
    }
    apt = ["apt-get", "-q", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    for words in (["update"], ["--download-only", "source", "sqlite3"]):
        done = subprocess.run([*apt, *words], cwd=work, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Missing(f"apt-get {' '.join(words)} failed ({MIRROR} not reachable?):\n{done.stderr.strip()}")
    found = sorted(work.glob("sqlite3_*.orig.tar.*"))
    if not found:
        raise Missing(f"apt-get source sqlite3 brought no archive with the source into {work}")
    return found[-1]


def _unpack(archive: Path, to: Path) -> None:
    raw = to.with_suffix(".new")
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(raw)], check=True)
    (top,) = raw.iterdir()
    top.rename(to)
    raw.rmdir()
