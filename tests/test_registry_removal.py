"""What the registry says of a group that nodes look for, and which word lets it remove a dataset."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from dspm.errors import ConflictError
from dspm.netram.messages import DatasetEntry, MemberEntry, Quiet, SetEntry
from dspm.netram.registry import removal
from dspm.netram.registry import store as rows
from dspm.netram.registry.store import Store

SET = SetEntry(1, 3, "active", "n1", [MemberEntry("n1", 1)])


def created(store: Store, name: str) -> DatasetEntry:
    with store.decide(changes_view=False) as db:
        rows.put_set(db, SET)
        entry = DatasetEntry(name, store.new_id(db), store.new_id(db), SET.id, "memory", 1, 1)
        rows.add_dataset(db, entry)
    return entry


def remove(store: Store, entry: DatasetEntry) -> None:
    with store.decide(changes_view=False) as db:
        rows.remove_dataset(db, entry, ["n1"])
        rows.freed(db, "n1", [entry.group])


def test_a_group_is_removed_only_if_this_state_drew_it(tmp_path: Path) -> None:
    path, old = tmp_path / "registry.db", tmp_path / "old.db"
    store = Store(path, "c")
    gone, held = created(store, "a"), created(store, "b")
    remove(store, gone)
    again = created(store, "a")
    store.close()
    shutil.copy(path, old)
    store = Store(path, "c")
    young = created(store, "young")
    assert [store.was_removed(d.group) for d in (gone, held, again, young)] == [True, False, False, False]
    remove(store, young)
    assert store.was_removed(young.group)
    older = Store(old, "c")
    assert older.was_removed(gone.group) and not older.was_removed(young.group), "it does not know that one"


def test_a_state_of_before_knows_what_it_removed(tmp_path: Path) -> None:
    """Format 3, as older versions wrote it."""
    path = tmp_path / "registry.db"
    store = Store(path, "c")
    gone, held = created(store, "a"), created(store, "b")
    remove(store, gone)
    store.close()
    db = sqlite3.connect(path)
    for statement in (
        "DROP TABLE draining",
        "ALTER TABLE sets DROP COLUMN dropped",
        "ALTER TABLE sets DROP COLUMN history",
        "PRAGMA user_version = 3",
    ):
        db.execute(statement)
    db.commit()
    db.close()
    store = Store(path, "c")
    assert store.was_removed(gone.group) and not store.was_removed(held.group)


def test_only_the_word_of_this_try_from_this_primary_removes() -> None:
    entry = removal.marked(DatasetEntry("a", 7, 8, SET.id, "memory", 1, 1))
    assert entry.removing and removal.marked(entry) == entry
    said = Quiet(SET.id, SET.generation, entry.group, entry.removing)
    removal.check_quiet(entry, SET, "n1", said)
    another = removal.marked(removal.unmarked(entry))
    activating = msgspec.structs.replace(SET, state="activating")
    for known, group_set, node, word in (
        (None, SET, "n1", said),
        (removal.unmarked(entry), SET, "n1", msgspec.structs.replace(said, removing=0)),
        (another, SET, "n1", said),
        (entry, SET, "n2", said),
        (entry, activating, "n1", said),
        (entry, SET, "n1", msgspec.structs.replace(said, generation=2)),
        (entry, msgspec.structs.replace(SET, id=2), "n1", said),
    ):
        with pytest.raises(ConflictError):
            removal.check_quiet(known, group_set, node, word)
