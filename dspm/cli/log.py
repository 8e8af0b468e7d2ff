"""`dspm log`: a stopped node's disk log, readable."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from dspm.cli.arguments import GivenPath
from dspm.errors import DataError, UsageError

app = App(name="log", help="The disk log of a stopped node.", help_format="plaintext")
Flag = Annotated[bool, Parameter(negative="")]


@app.command
def dump(
    data_dir: GivenPath,
    /,
    *,
    group: str | None = None,
    from_: Annotated[int, Parameter(name="--from")] = 0,
    pages: Flag = False,
    json: Flag = False,
) -> None:
    """Print the batches and entries of the log in their order, a line each.

    Parameters
    ----------
    data_dir
        A node's data directory, such as D/nodes/n1 of `dspm up --dir D`.
    group
        Only this group: its id, in decimal or as 0x and hexadecimal digits.
    from_
        Only records, cuts and checkpoints from this LSN on.
    pages
        Name each page of a record, too.
    json
        Print each line as JSON.
    """
    import sys

    import msgspec

    from dspm.formats import datadir
    from dspm.formats.dump import Filter, lines, text
    from dspm.formats.log import Log
    from dspm.formats.report import Report

    wanted = Filter(None if group is None else _id(group), from_, pages)
    directory = datadir.of(data_dir)
    report = Report()
    with datadir.stopped(directory, None):
        for line in lines(Log(directory.log), wanted, report):
            sys.stdout.write((msgspec.json.encode(line).decode() if json else text(line)) + "\n")
    for found in report.notes:
        print(f"dspm: note: {found}", file=sys.stderr)
    if report.problems:
        raise DataError(str(report.problems[0]), "`dspm fsck DATA_DIR` tells all that is damaged")


def _id(written: str) -> int:
    try:
        number = int(written, 16 if written.lower().startswith("0x") else 10)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"--group {written[:40]}: expected an id", "as the dump shows it: 0x and hexadecimal digits")
    return number
