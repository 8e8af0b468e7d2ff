"""`dspm recover`: replica sets none of whose complete members is left, and how they go on with a loss; and a registry
whose state is an old one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspm.cli.output import print_json
from dspm.errors import ConflictError, DspmError, NotFoundError, UsageError

if TYPE_CHECKING:
    from dspm.netram.config import Config
    from dspm.netram.operator import Operator
    from dspm.netram.recovery import Plan
    from dspm.netram.status import Survey

Flag = Annotated[bool, Parameter(negative="")]
_NAMES_MAX = 5


def recover(
    *datasets: str,
    set: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    accept_loss: Flag = False,
    registry: Flag = False,
    node: str | None = None,
    yes: Flag = False,
    json: Flag = False,
) -> None:
    """Explain what is left of replica sets that are down, and let them go on although commits are lost.

    Without `--accept-loss` it changes nothing.

    Parameters
    ----------
    datasets
        Only the sets of these; otherwise all that are down.
    set
        Only this one, as `dspm status` names it.
    accept_loss
        Go on from the node that has the most; what only the nodes have that are given up is lost.
    registry
        Let a registry whose state is older than what nodes know go on from what they know.
    node
        With --registry: from what this one knows; otherwise from the newest that any node which answers knows.
    yes
        Do not ask.
    json
        Print it as JSON.
    """
    from dspm.cli.takeover import take_over
    from dspm.netram.config import load_cluster
    from dspm.netram.operator import of_cluster
    from dspm.netram.recovery import plans
    from dspm.netram.status import Survey

    if registry and (datasets or set or accept_loss):
        raise UsageError("--registry is about all sets, and goes alone", "leave out DATASETS, --set and --accept-loss")
    if node is not None and not registry:
        raise UsageError("--node goes with --registry", "`dspm recover --help`")
    config = load_cluster()
    if registry:
        with of_cluster(config) as operator:
            return take_over(operator, node, yes, json)
    with of_cluster(config) as operator, Survey(config) as survey:
        wanted = _wanted(survey, config, datasets, set)
        found = plans(survey, operator.view()["nodes"], wanted)
        _check_down(survey, wanted, found)
        if not json:
            _explain(found, accept_loss)
        if accept_loss and found:
            _accept(operator, found, yes, json)
    if json:
        print_json({"sets": [{**p.as_json(), "recovered": accept_loss} for p in found]})


def _wanted(survey: Survey, config: Config, datasets: tuple[str, ...], sets: tuple[str, ...]) -> set[int] | None:
    """The sets that were named; None for all."""
    from dspm.netram.names import dataset_name

    if not datasets and not sets:
        return None
    known = {f"{s.id:016x}": s.id for s in survey.view.sets}
    if unknown := [s for s in sets if s not in known]:
        raise NotFoundError(f"there is no replica set {unknown[0][:40]!r}", "`dspm status` lists them")
    names = {dataset_name(config.namespace, d) for d in datasets}
    placed = {d.name: d.set for page in survey.pages(lambda d: d.name in names) for d in page.datasets}
    if missing := sorted(names - placed.keys()):
        raise NotFoundError(f"there is no dataset named {missing[0][:80]!r}", "`dspm ls` lists them")
    return {*placed.values(), *(known[s] for s in sets)}


def _check_down(survey: Survey, wanted: set[int] | None, found: list[Plan]) -> None:
    """Refuses sets that were named and are not down."""
    down = {p.entry.id for p in found}
    for s in sorted(i for i in wanted or () if i not in down):
        entry = next(e for e in survey.view.sets if e.id == s)
        whole = next((m.node for m in entry.last_active if survey.holds(m.node, m.store)), entry.primary)
        raise ConflictError(
            f"the replica set {s:016x} is not down: {whole} answers and holds everything", "nothing has to be lost"
        )


def _explain(found: list[Plan], accept_loss: bool) -> None:
    if not found:
        print("No replica set is down.")
    for p in found:
        print(f"replica set {p.entry.id:016x}, generation {p.entry.generation}, holds {_names(p)}; it is down:")
        for h in p.holders:
            print(f"  {h.node} ({h.role}) {h.state}")
        if p.source is None:
            print(
                "  No node that answers holds all pages of it. Bring one back that is complete or dropped; or begin the"
            )
            print("  datasets anew: `dspm rm --accept-loss NAME` removes one, with whatever is left of it.")
            continue
        print(f"  {p.source.node} has the most. If the set goes on from it:")
        for loss in p.losses[:_NAMES_MAX]:
            known = f"; {loss.known} is known to exist" if loss.known > loss.lsn else ""
            print(f"    {loss.dataset} loses the commits after LSN {loss.lsn}, if there were any{known}")
        if len(p.losses) > _NAMES_MAX:
            print(f"    … and {len(p.losses) - _NAMES_MAX} more; --json lists them all")
        if p.given_up:
            lose = "loses" if len(p.given_up) == 1 else "lose"
            print(f"    {' and '.join(p.given_up)} may only join again, and {lose} what {p.source.node} does not have.")
        if not accept_loss:
            print(f"  Nothing is lost if {' or '.join(m.node for m in p.entry.last_active)} comes back as it was.")
            print(f"  If none ever does: dspm recover --accept-loss --set {p.entry.id:016x}")


def _names(plan: Plan) -> str:
    names = [d.name for d in plan.datasets]
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(names[:_NAMES_MAX]) + more


def _accept(registry: Operator, found: list[Plan], yes: bool, json: bool) -> None:
    from dspm.netram.messages import MemberEntry

    if hopeless := [p for p in found if p.source is None]:
        raise DspmError(
            f"no node that answers holds all pages of {_names(hopeless[0])}; nothing was changed",
            "bring one back that is complete or dropped; or begin the datasets anew (`dspm rm --accept-loss NAME`)",
        )
    if not yes:
        _confirm(found, json)
    for p in found:
        assert p.source is not None
        now = registry.recover(p.entry.id, p.entry.generation, MemberEntry(p.source.node, p.source.store))
        if not json:
            print(f"replica set {now.id:016x} goes on from {now.primary}, in generation {now.generation}")


def _confirm(found: list[Plan], json: bool) -> None:
    if json or not sys.stdin.isatty():
        raise UsageError(
            "--accept-loss gives up commits that were acknowledged; nothing was changed",
            "say --yes too where nobody can be asked",
        )
    others = sorted({n for p in found for n in p.given_up})
    running = f" {' and '.join(others)} must not run any more." if others else ""
    if input(f"What is named above is lost for good.{running} Type `lose` to go on: ").strip() != "lose":
        raise DspmError("nothing was changed", "`dspm recover` explains again")
