"""`dspm up` and `dspm down`: a cluster on this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dspm.cli.arguments import GivenPath
from dspm.cli.output import print_json
from dspm.errors import UsageError


def up(
    *,
    dir: GivenPath,
    nodes: int | None = None,
    copies: str | None = None,
    memory: str | None = None,
    durability: str | None = None,
    set: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    netns: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Start a cluster on this machine, or whatever is missing of it. Returns when it serves.

    Called again for the same directory it needs no options: it uses those of the first time.

    Parameters
    ----------
    dir
        Directory of the cluster: config, key, logs, data.
    nodes
        Number of nodes, each a process. Default 3.
    copies
        Nodes that hold every commit before it returns. Default 2.
    memory
        Memory of each node, such as 1GiB. Default 512MiB.
    durability
        memory (the default): a commit outlives all copies but one. disk: a power cut too.
    set
        KEY=VALUE: a setting for the config file, such as cache.size=16MiB. Can be repeated.
    netns
        Every node, the registry and three hosts for clients in network namespaces of their own, joined by a bridge
        (root, iproute2). Nothing is encrypted between them. `down` removes them.
    json
        Print where everything is, as JSON.
    """
    from dspm.netram.cluster import Asked
    from dspm.netram.cluster import up as start

    settings: dict[str, str] = {}
    for text in set or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text[:80]}: expected KEY=VALUE", "for example --set cache.size=16MiB")
        settings[key.strip()] = value.strip()
    for key, option in (("copies", copies), ("memory", memory), ("durability", durability)):
        if option is not None:
            settings[key] = option
    info = start(dir, Asked(nodes, settings, netns))
    if json:
        print_json(info)
        return
    print(f"{len(info['nodes'])} nodes serve; registry {info['registry']['url']}")
    for host in info.get("netns", {}).get("clients", []):
        print(f"on {host['name']}, {host['address']}: ip netns exec {host['namespace']} COMMAND")
    print(f"export DSPM_CONFIG={info['config']}")


def down(*, dir: GivenPath) -> None:
    """End the processes of a cluster that `dspm up` started, and wait until none is left. Its data stays.

    Parameters
    ----------
    dir
        Directory of the cluster.
    """
    from dspm.netram.cluster import down as stop

    stop(dir)
