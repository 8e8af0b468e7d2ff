"""What to say of a node that came back without the memory that replica sets count on."""

from __future__ import annotations

from collections.abc import Iterable

from dspm.netram.messages import SetEntry


def what_waits(sets: Iterable[SetEntry], node: str, store: int, reason: str = "") -> str:
    """One sentence on the sets that know the node by another store id; empty when there are none.

    Args:
        sets: all sets of the cluster.
        node: its name.
        store: what it remembers now.
        reason: why its memory is gone, in its own words.
    """
    waiting = sum(any(m.node == node and m.store != store for m in s.members) for s in sets)
    if not waiting:
        return ""
    which = "1 replica set waits" if waiting == 1 else f"{waiting} replica sets wait"
    return f"{reason + '; ' if reason else ''}{which} for what it held; new datasets are served"
