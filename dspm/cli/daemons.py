"""`dspm node` and `dspm registry`: one process of a cluster, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from dspm.cli.arguments import GivenPath
from dspm.cli.operate import drain, remove

app = App(name="node", help_format="plaintext")
app.command(drain)
app.command(remove)
Flag = Annotated[bool, Parameter(negative="")]


def registry(
    *, dir: GivenPath, config: Path | None = None, listen: str = "127.0.0.1:7400", insecure: Flag = False
) -> None:
    """Run the registry in the foreground. Prints one line of JSON when it serves.

    Parameters
    ----------
    dir
        Directory of its state.
    config
        The cluster's config; otherwise the one that is found.
    listen
        host:port of its HTTP API.
    insecure
        Listen off loopback although nothing is encrypted yet.
    """
    from dspm.netram.config import load, load_file
    from dspm.netram.registry.daemon import run

    run(load_file(config) if config else load(), dir.absolute(), listen, insecure)


@app.default
def node(
    *,
    name: str,
    data_dir: GivenPath,
    config: Path | None = None,
    listen: str = "127.0.0.1:0",
    metrics: str = "127.0.0.1:0",
    memory: str | None = None,
    machine: str | None = None,
    arena: Path | None = None,
    insecure: Flag = False,
) -> None:
    """Run a node in the foreground and register it. Prints one line of JSON when it serves.

    Parameters
    ----------
    name
        Its name, unique in the cluster.
    data_dir
        Directory of its log and base files.
    config
        The cluster's config; otherwise the one that is found.
    listen
        host:port of its data path.
    metrics
        host:port of its metrics.
    memory
        Memory that it gives, such as 16GiB; otherwise `memory` of the config.
    machine
        What fails at once with it; otherwise this host's id.
    arena
        File of its memory, on tmpfs; otherwise one in /dev/shm.
    insecure
        Listen off loopback although nothing is encrypted yet.
    """
    from dspm.netram import arenas, limits
    from dspm.netram.config import load
    from dspm.netram.foreground import run_node
    from dspm.netram.names import check_node_name
    from dspm.netram.node import Node, arena_path, host_machine_id

    check_node_name(name)  # the registry would refuse it, when the node serves already
    settings = load(config, {} if memory is None else {"memory": memory})
    limits.check_memory(1, settings.memory_bytes)
    directory = data_dir.absolute()
    file = arena.absolute() if arena else arena_path(directory, name)
    if not arena:
        arenas.begin_anew(directory, file)
    if not file.exists() and not arena:
        limits.check_room(1, settings.memory_bytes)
    run_node(Node(name, machine or host_machine_id(), str(directory), str(file)), settings, listen, metrics, insecure)
