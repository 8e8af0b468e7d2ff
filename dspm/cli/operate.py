"""`dspm switchover`, `dspm node drain` and `remove`: what an operator asks of the registry."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative="")]
_LOOK_AGAIN_S = 0.2


def switchover(dataset: str, node: str | None = None, /) -> None:
    """Have another complete member serve as the primary of a dataset. Ends when it serves.

    All datasets of the same replica set move along. Commits wait for a moment, nothing is lost.

    Parameters
    ----------
    dataset
        Its name.
    node
        The member that is to serve; otherwise the one that serves least.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.names import dataset_name
    from dspm.netram.operator import of_cluster

    config = load_cluster()
    with of_cluster(config) as registry:
        now = registry.switchover(dataset_name(config.namespace, dataset), node)
    print(f"{now.primary} serves, in generation {now.generation}")


def drain(name: str, /, *, undo: Flag = False, wait: Flag = False) -> None:
    """Move all replica sets away from a node, so that it can be ended without a copy less.

    Other nodes take the copies first; then the node is dropped from its sets and frees what it held. It takes nothing
    new until `--undo`.

    Parameters
    ----------
    name
        The node's name.
    undo
        Take it into use again.
    wait
        Return when no set is left on it.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.operator import of_cluster

    with of_cluster(load_cluster()) as registry:
        if undo:
            registry.undrain(name)
            return
        sets = registry.drain(name)
        while wait and registry.is_emptying(name):
            time.sleep(_LOOK_AGAIN_S)
    which = "1 replica set" if sets == 1 else f"{sets} replica sets"
    print(f"{which} moved away from {name}" if wait else f"{which} to move away from {name}: `dspm status` shows it")


def remove(name: str, /) -> None:
    """Forget a node for good: one that is drained, that no replica set names any more, and that does not run.

    Started again it is a new node.

    Parameters
    ----------
    name
        The node's name.
    """
    from dspm.netram.config import load_cluster
    from dspm.netram.operator import of_cluster

    with of_cluster(load_cluster()) as registry:
        registry.remove_node(name)
