"""`dspm config`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from dspm.cli.output import print_json, print_table
from dspm.errors import UnavailableError

app = App(name="config", help="The configuration.", help_format="plaintext")


@app.command
def show(*, config: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show every key, its value, who set it and what it means. Where no cluster is configured these are the defaults.

    Parameters
    ----------
    config
        The file to read instead of the one that is found.
    json
        Print it as JSON.
    """
    from dspm.netram.config import Setting, load, load_defaults

    try:
        found = load(config)
    except UnavailableError as e:
        print(f"dspm: warning: {e}: these are the defaults", file=sys.stderr)
        found = load_defaults()
    if json:
        settings = {s.key: {"value": s.value, "origin": s.origin} for s in found.settings}
        print_json({"path": found.path, "settings": settings})
        return

    def origin(s: Setting) -> str:
        if isinstance(s.origin, str):
            return s.origin
        kind, where = next(iter(s.origin.items()))
        return f"line {where}" if kind == "file" else str(where)

    rows = [(s.key, s.value, origin(s), s.meaning) for s in found.settings]
    print_table(str(found.path or "no file"), ("key", "value", "set by", "meaning"), rows, frozenset())
