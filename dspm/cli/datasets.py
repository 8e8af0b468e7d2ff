"""`dspm ls`, `dspm rm`, `dspm mv`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dspm.cli.output import print_json, print_table


def ls(
    *, all: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """List the datasets and their sizes in bytes.

    Parameters
    ----------
    all
        Those too that an import is making, or a killed one left.
    json
        Print it as JSON.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.status import gather, sizes
    from dspm.txn.hidden import is_hidden

    answers = gather(load_cluster())
    bytes_of = sizes(answers)
    shown = [d for d in answers.datasets if all or not is_hidden(d.name)]
    found = [{"name": d.name, "size": bytes_of.get(d.dataset, 0)} for d in shown]
    if json:
        print_json({"datasets": found})
    else:
        print_table("", ("dataset", "bytes"), [(d["name"], d["size"]) for d in found], frozenset({"bytes"}))


def rm(name: str, /) -> None:
    """Remove a dataset from all nodes.

    Parameters
    ----------
    name
        Its name.
    """
    from dspm.netram.client import ask_any
    from dspm.netram.config import load_cluster
    from dspm.netram.messages import Done, Remove
    from dspm.netram.names import dataset_name

    config = load_cluster()
    ask_any(config, Remove(dataset_name(config.namespace, name)), Done)


def mv(name: str, to: str, /) -> None:
    """Rename a dataset.

    Parameters
    ----------
    name
        Its name.
    to
        Its new name, which must be free.
    """
    from dspm.netram.client import ask_any
    from dspm.netram.config import load_cluster
    from dspm.netram.messages import Done, Rename
    from dspm.netram.names import dataset_name

    config = load_cluster()
    ask_any(config, Rename(dataset_name(config.namespace, name), dataset_name(config.namespace, to)), Done)
