"""Datasets by name. Names are as a program opens them: the configured namespace comes before them."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from dspm import _native

Config = str | os.PathLike[str] | None
"""Path of a config file, or None: DSPM_CONFIG, the user's, the system's."""


class Entry(msgspec.Struct, frozen=True):
    """A dataset in the catalog. `name` is the whole name, namespace included; ids are u64."""

    name: str
    dataset: int
    group: int
    set: int
    durability: Literal["memory", "pm", "disk"]
    copies: int
    min_copies: int
    history_ms: int = 0


class _Listing(msgspec.Struct):
    datasets: list[Entry]


class _Located(msgspec.Struct):
    entry: Entry


def config_text(config: Config) -> str | None:
    """What the library takes for a config."""
    return None if config is None else os.fsdecode(config)


def list_datasets(*, config: Config = None) -> list[Entry]:
    """All datasets of the cluster, hidden ones too, by name.

    Raises:
        UnavailableError: no node answers.
    """
    raw = _native.call_for_text("dspm_list", _native.text(config_text(config)))
    return sorted(msgspec.json.decode(raw, type=_Listing).datasets, key=lambda d: d.name)


def locate(name: str, *, config: Config = None) -> Entry:
    """The dataset of that name.

    Raises:
        NotFoundError: there is none.
    """
    raw = _native.call_for_text("dspm_locate", _native.text(config_text(config)), _native.text(name))
    return msgspec.json.decode(raw, type=_Located).entry


def remove(name: str, *, config: Config = None) -> None:
    """Removes a dataset from all nodes. Whoever has it open gets errors.

    Raises:
        NotFoundError: there is none of that name.
    """
    _native.call("dspm_remove", _native.text(config_text(config)), _native.text(name))


def rename(name: str, to: str, *, aside: str | None = None, config: Config = None) -> None:
    """Gives a dataset another name, in one step. Handles that are open go on.

    Args:
        name: what it is called now.
        to: what it is called then.
        aside: what the dataset that is called `to` now is called then; None: `to` must be free.
        config: which cluster.

    Raises:
        NotFoundError: there is none of that name.
        DspmError: `to`, or `aside`, is taken.
    """
    texts = [_native.text(t) for t in (config_text(config), name, to, aside)]
    _native.call("dspm_rename", *texts)
