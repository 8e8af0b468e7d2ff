"""`dspm recover --registry`: a registry with an old state goes on, on an operator's word, from what a node knows."""

from __future__ import annotations

import sys
from typing import Any

from dspm.cli.output import print_json, printable
from dspm.errors import ConflictError, DspmError, UsageError
from dspm.netram.operator import Operator

_NAMES_MAX = 5


def take_over(registry: Operator, node: str | None, yes: bool, json: bool) -> None:
    """Says what is given up, asks, and has it done."""
    known = registry.view()
    if not known.get("trouble"):
        raise ConflictError("no node knows more than the registry's state: it decides", "nothing has to be given up")
    silent = sorted(n["name"] for n in known["nodes"] if n["state"] == "down")
    if not json:
        _explain(known["trouble"], silent, node)
    if not yes:
        _confirm(json)
    done = registry.take_over(node)
    print_json(done) if json else _tell(done)


def _explain(trouble: str, silent: list[str], node: str | None) -> None:
    print(f"{printable(trouble)}.")
    print(f"It can go on from what {node or 'the node with the newest view'} knows.")
    if silent:
        print(f"What was committed since at {' and '.join(silent)} alone, which does not answer, is given up then.")


def _confirm(json: bool) -> None:
    if json or not sys.stdin.isatty():
        raise UsageError(
            "--registry may give up what nodes know that do not answer; nothing was changed",
            "say --yes too where nobody can be asked",
        )
    if input("Type `lose` to go on: ").strip() != "lose":
        raise DspmError("nothing was changed", "start the nodes that are away: it is certain then, and needs no order")


def _tell(done: dict[str, Any]) -> None:
    print(f"The registry goes on from what {done['node']} knows, with version {done['version']} of the view.")
    if done["gained"]:
        print(f"Its state did not know {_names(done['gained'])}.")
    if done["doubtful"]:
        print(f"No node of their set knows {_names(done['doubtful'])}: `dspm rm` what was removed since.")
    for old, new in done["aside"]:
        print(f"{printable(old)} has a name that another one has by now, and is called {printable(new)}.")


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(printable(n) for n in names[:_NAMES_MAX]) + more
