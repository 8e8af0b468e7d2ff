"""`dspm recover --registry`: a registry with an old state goes on, on an operator's word, from what a node knows."""

from __future__ import annotations

import sys
from typing import Any

from dspm.cli.output import print_json, printable
from dspm.errors import ConflictError, DspmError, NotFoundError, UnavailableError, UsageError
from dspm.netram.operator import Operator

_NAMES_MAX = 5


def take_over(registry: Operator, node: str | None, yes: bool, json: bool) -> None:
    """Says what is given up, asks, and has it done."""
    known = registry.view()
    if not known.get("trouble"):
        raise ConflictError("no node knows more than the registry's state: it decides", "nothing has to be given up")
    states = {n["name"]: n["state"] for n in known["nodes"]}
    silent = sorted(n for n, state in states.items() if state == "down")
    _check_node(node, states)
    if not json:
        _explain(known["trouble"], silent, node)
    if not yes:
        _confirm(json)
    done = registry.take_over(node)
    print_json(done) if json else _tell(done)


def _check_node(node: str | None, states: dict[str, str]) -> None:
    """Nothing is explained or asked about a node that it cannot go on from."""
    if node is None:
        return
    if node not in states:
        raise NotFoundError(f"there is no node named {node[:80]!r}", "`dspm status` lists the nodes")
    if states[node] == "down":
        raise UnavailableError(f"{node} does not answer", "name one that does, or none")


def _explain(trouble: str, silent: list[str], node: str | None) -> None:
    print(f"{printable(trouble)}.")
    print(f"It can go on from what {node or 'the node with the newest view'} knows: each replica set as it knows it.")
    print("What another node knows that contradicts it is given up then.")
    if silent:
        count = "does" if len(silent) == 1 else "do"
        print(f"{' and '.join(silent)} {count} not answer: what was committed there alone is given up, too.")


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
