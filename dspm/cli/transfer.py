"""`dspm import`, `dspm export`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative="")]
AsOf = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


def import_(file: Path, name: str, /, *, replace: Flag = False, check: Flag = False) -> None:
    """Make a dataset of a SQLite file. It appears whole or not at all, verified by reading it back from the nodes.

    Parameters
    ----------
    file
        The file, in any journal mode. Readers may use it meanwhile.
    name
        Name of the dataset.
    replace
        Replace a dataset of that name. Programs that have it open get errors.
    check
        Run PRAGMA integrity_check on what was stored, before it gets its name.
    """
    from dspm.netram.limits import human
    from dspm.txn.importing import import_file

    with Bar() as bar:
        done = import_file(file, name, replace=replace, check=check, progress=bar)
    rates = f"written at {done.write_rate / 1e6:.0f} MB/s, read back at {done.verify_rate / 1e6:.0f} MB/s"
    print(f"{name}: {human(done.size)} in {done.seconds:.1f} s; {rates}")


def export(name: str, file: Path, /, *, as_of: AsOf = None, force: Flag = False) -> None:
    """Write the newest state of a dataset to a file, byte for byte, or an old one. Writers go on meanwhile.

    Parameters
    ----------
    name
        Name of the dataset.
    file
        The file.
    as_of
        A state of the past, as far as the dataset's `history` goes: the number of a commit, or how long ago (-30s).
    force
        Replace a file that exists.
    """
    from dspm.netram.limits import human
    from dspm.txn.exporting import export_file

    with Bar() as bar:
        done = export_file(name, file, force=force, as_of=as_of, progress=bar)
    rate = done.size / max(done.seconds, 1e-9) / 1e6
    print(f"{file}: {human(done.size)} of LSN {done.lsn} in {done.seconds:.1f} s ({rate:.0f} MB/s)")


class Bar:
    """A progress bar on stderr where that is a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._what = ""

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, what: str, total: int) -> None:
        """A new stage begins."""
        self._what = what
        if self._bar is not None:
            self._bar.reset(self._task, total=total or None, description=what)

    def advance(self, done: int) -> None:
        """So many bytes are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def waiting(self, why: str) -> None:
        """It waits, or goes on."""
        if self._bar is not None:
            self._bar.update(self._task, description=why or self._what)
