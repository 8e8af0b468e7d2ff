"""The cluster of a dspm target, asked before worker processes begin: its errors come with their own exit status."""

from __future__ import annotations

from dspm.errors import NotFoundError
from dspm.netram.client import ask_any, connect_any
from dspm.netram.config import load_cluster
from dspm.netram.messages import Locate, Located
from dspm.netram.names import dataset_name


def check_cluster() -> None:
    """Raises UnavailableError if no cluster is configured or no node of it answers."""
    connect_any(load_cluster()).close()


def is_there(name: str) -> bool:
    """Whether there is a data set of that name. To open it would make it."""
    config = load_cluster()
    try:
        ask_any(config, Locate(dataset_name(config.namespace, name)), Located)
    except NotFoundError:
        return False
    return True
