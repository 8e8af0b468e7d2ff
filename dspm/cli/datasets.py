"""`dspm ls`, `dspm rm`, `dspm mv`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dspm.cli.output import JsonObject, Table
from dspm.errors import DspmError


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
    from dspm.netram.status import Survey
    from dspm.txn.hidden import is_hidden

    with Survey(load_cluster()) as survey:
        pages = survey.pages(lambda d: all or not is_hidden(d.name))
        if json:
            out = JsonObject()
            out.items("datasets", ([{"name": d.name, "size": p.size(d)} for d in p.datasets] for p in pages))
            out.end()
            return
        table = Table("", ("dataset", "bytes"), frozenset({"bytes"}))
        for page in pages:
            table.rows([(d.name, page.size(d)) for d in page.datasets])
        table.end()


def rm(name: str, /, *, accept_loss: bool = False) -> None:
    """Remove a dataset from all nodes.

    Parameters
    ----------
    name
        Its name.
    accept_loss
        Also while its replica set is down, or a transaction over several databases waits for what it decided: that may
        then be in some of them only.
    """
    from dspm.netram.client import ask_any
    from dspm.netram.config import load_cluster
    from dspm.netram.messages import Done, Remove
    from dspm.netram.names import dataset_name

    config = load_cluster()
    ask_any(config, Remove(dataset_name(config.namespace, name), accept_loss), Done)


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
    try:
        ask_any(config, Rename(dataset_name(config.namespace, name), dataset_name(config.namespace, to)), Done)
    except DspmError as e:
        e.hint = e.hint or "`dspm ls` lists the names that are taken"
        raise
