"""Real WiredTiger libraries for the tests, one for each binary interface that can be had: `python -m tests.wiredtiger`.

Debian's package is 3.2.1; PyPI has the sources of 11.2.0 and 11.3.1, which are built as a plain C library (minutes,
once) and kept in the user's cache directory. WiredTiger is GPL: it is never part of this repository, and nothing of
dspm links it. What cannot be had is skipped by the tests, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DEBIAN = "3.2.1"
ENTRIES = {DEBIAN: "dspm_wiredtiger_4_0", "11.2.0": "dspm_wiredtiger_5_0", "11.3.1": "dspm_wiredtiger_8_0"}
PARTS = ("include", "lib", "bin")
# WiredTiger's own programs that are killed and recover.
CRASHES = ("random_abort", "timestamp_abort", "schema_abort")
BUILD = ["-DCMAKE_BUILD_TYPE=Release", "-DENABLE_STATIC=0", "-DENABLE_SHARED=1"]
BUILD += [f"-DENABLE_{what}=0" for what in ("STRICT", "PYTHON", "CPPSUITE", "MODEL", "LZ4", "SNAPPY", "ZLIB", "ZSTD")]


class Missing(Exception):
    """An engine that is not here; the text says how it is had."""


@dataclass(frozen=True)
class Engine:
    """An installed WiredTiger."""

    version: str
    include: Path
    library: Path
    programs: Path

    @property
    def entry(self) -> str:
        """Name of the entry for this version."""
        return ENTRIES[self.version]


def find(version: str) -> Engine:
    """The engine, if it is here already."""
    engine = _debian() if version == DEBIAN else Engine(version, *(_kept(version) / part for part in PARTS))
    header = engine.include / "wiredtiger.h"
    found = header.is_file() and re.search(r'WIREDTIGER_VERSION_STRING\s+"WiredTiger (\S+):', header.read_text())
    if not found or not (engine.library / "libwiredtiger.so").exists():
        raise Missing(f"WiredTiger {version} is not here: `make wiredtiger` gets it")
    if found[1] != version:
        raise Missing(f"{header} is of WiredTiger {found[1]}, not {version}")
    return engine


def make(version: str) -> Engine:
    """The engine, had from where it can be had."""
    try:
        return find(version)
    except Missing:
        _install() if version == DEBIAN else _build(version)
        return find(version)


def _debian() -> Engine:
    triple = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True).stdout.strip()
    return Engine(DEBIAN, Path("/usr/include"), Path("/usr/lib") / triple, Path("/nonexistent"))


def _install() -> None:
    """Debian's package."""
    if not shutil.which("apt-get"):
        raise Missing(f"WiredTiger {DEBIAN} comes from Debian's libwiredtiger-dev, and there is no apt-get here")
    if os.getuid() != 0:
        raise Missing(f"WiredTiger {DEBIAN} needs root once: sudo apt-get install libwiredtiger-dev")
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    _run("apt-get", "install", "-y", "-qq", "libwiredtiger-dev")


def _kept(version: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dspm" / f"wiredtiger-{version}"


def _build(version: str) -> None:
    """Fetches the source and builds the library; it appears in the cache whole or not at all."""
    work = _kept(version).with_name(f"building-{version}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        tools = work / "tools"
        venv.create(tools, with_pip=True)
        pip = [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        _run(*pip, "install", "-r", str(HERE / "tools.lock"))
        _fetch(pip, version, work)
        tree = work / f"wiredtiger-{version}"
        with tarfile.open(work / f"wiredtiger-{version}.tar.gz") as archive:
            archive.extractall(work, filter="data")
        path = {**os.environ, "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        _run("cmake", "-S", str(tree), "-B", str(work / "b"), "-G", "Ninja", *BUILD, env=path)
        targets = ["libwiredtiger.so", *(f"test_{name}" for name in CRASHES)]
        _run("cmake", "--build", str(work / "b"), "--target", *targets, env=path)
        _keep(work / "b", version, work / "whole")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(pip: list[str], version: str, to: Path) -> None:
    """The source archive, checked against its hash."""
    line = next(x for x in (HERE / "engines.lock").read_text().splitlines() if x.startswith(f"wiredtiger=={version} "))
    (to / "engine.lock").write_text(line + "\n")
    how = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    _run(*pip, "download", "-d", str(to), *how, "-r", str(to / "engine.lock"))


def _keep(built: Path, version: str, whole: Path) -> None:
    for part in PARTS:
        (whole / part).mkdir(parents=True)
    for name in CRASHES:
        shutil.copy(built / "test" / "csuite" / name / f"test_{name}", whole / "bin")
    shutil.copy(built / "include" / "wiredtiger.h", whole / "include")
    name = (built / "libwiredtiger.so").resolve()
    shutil.copy(name, whole / "lib")
    (whole / "lib" / "libwiredtiger.so").symlink_to(name.name)
    shutil.rmtree(_kept(version), ignore_errors=True)
    os.rename(whole, _kept(version))


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise Missing(f"{' '.join(command[:4])}… failed with {done.returncode}:\n{tail}")


def main() -> int:
    """Gets every engine; what cannot be had is said, and fails nothing but this command."""
    missing = 0
    for version in ENTRIES:
        try:
            print(f"WiredTiger {version}: {make(version).library}", flush=True)
        except Missing as why:
            missing += 1
            print(f"WiredTiger {version}: SKIPPED: {why}", file=sys.stderr, flush=True)
    return 1 if missing else 0
