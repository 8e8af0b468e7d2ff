"""Very many datasets, made as the registry would have made them: rows of its state, in one transaction."""

from __future__ import annotations

from dspm.netram.messages import DatasetEntry
from dspm.netram.registry import store as rows
from dspm.netram.registry.store import Store

from .cluster import Cluster


def fill(cluster: Cluster, stem: str, count: int, like: str) -> list[str]:
    """`count` datasets beside the one that is called `like`, in the same set. The cluster is taken down for it."""
    cluster.down()
    store = Store(cluster.directory / "registry" / "registry.db", "")
    names = [f"{stem}-{i:06}" for i in range(count)]
    try:
        template = next(d for d in store.datasets() if d.name == like)
        rest = (template.durability, template.copies, template.min_copies, template.history_ms)
        with store.decide(changes_view=False) as db:
            for name in names:
                ids = store.new_id(db), store.new_id(db)
                rows.add_dataset(db, DatasetEntry(name, *ids, template.set, *rest))
    finally:
        store.close()
    cluster.up()
    return names
