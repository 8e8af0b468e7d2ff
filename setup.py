"""Builds libdspm.so and dspm-node with cargo and puts both into the package, for wheels and editable installs alike.

The library has no Python in it, so one wheel serves every Python: its tag is py3-none-PLATFORM.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
ARTIFACTS = ("libdspm.so", "dspm-node", "dspm-bench")
CRATES = ("dspm-dspm", "dspm-node", "dspm-bench")


class BuildWithCargo(build_py):
    """build_py, and then the two files of Rust."""

    def run(self) -> None:
        """Copies the sources and builds the rest."""
        super().run()
        crates = [word for crate in CRATES for word in ("-p", crate)]
        subprocess.run(["cargo", "build", "--release", "--locked", "--lib", "--bins", *crates], cwd=ROOT, check=True)
        built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        package = ROOT if self.editable_mode else Path(self.build_lib)
        target = package / "dspm" / "_native"
        target.mkdir(parents=True, exist_ok=True)
        for name in ARTIFACTS:
            # Renamed into place: a running process keeps the file that it has mapped.
            temporary = target / f".{name}.new"
            self.copy_file(str(built / name), str(temporary))
            os.replace(temporary, target / name)


class PlatformWheel(bdist_wheel):
    """A wheel for this platform and any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, no ABI, this platform."""
        return "py3", "none", super().get_tag()[2]


class NativeDistribution(Distribution):
    """A distribution that is not pure Python."""

    def has_ext_modules(self) -> bool:
        """True, so that the wheel goes to platlib."""
        return True


setup(cmdclass={"build_py": BuildWithCargo, "bdist_wheel": PlatformWheel}, distclass=NativeDistribution)
