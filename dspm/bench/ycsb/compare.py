"""Measures several targets in turns, so that a change of the machine's mood strikes all of them.

Every target has the same records, page and cache sizes, processes and operations. Within a round each target runs once;
the order turns by one from round to round, so that none always comes first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dspm.bench.ycsb.result import Comparison, Entry, Result
from dspm.bench.ycsb.runner import load, run
from dspm.bench.ycsb.settings import Settings
from dspm.bench.ycsb.target import COMPARED, Target, prepare_directory, target_named
from dspm.errors import UsageError

ROUNDS_DEFAULT = 3
ROUNDS_MAX = 1000
LOAD_BATCH = 1000
"""Records in one transaction while loading, which is not what a comparison measures."""

Progress = Callable[[str], None]


def compare(
    settings: Settings,
    targets: Sequence[str] = COMPARED,
    *,
    rounds: int = ROUNDS_DEFAULT,
    verify: bool = True,
    progress: Progress = lambda _: None,
) -> Comparison:
    """Loads every target, then runs the workload `rounds` times against each. Ratios refer to the first target.

    Files go into temporary directories and are removed; the data set of a dspm target stays, under `settings.db`.
    Interrupted behind the first round, it returns the rounds that all targets did; before that it raises.
    """
    if not 1 <= rounds <= ROUNDS_MAX:
        raise UsageError(f"--rounds is {rounds}, not from 1 to {ROUNDS_MAX}", "three rounds show the spread")
    if len(targets) < 2 or len(set(targets)) != len(targets):
        raise UsageError("a comparison needs two or more different targets", "for example --target dspm --target wal")
    places = [target_named(name, settings.binding) for name in targets]
    for place in places:
        prepare_directory(place, settings)
    with _temporary(settings) as disk, _temporary_memory(settings) as memory:
        own = replace(settings, directory=Path(disk), memory_directory=Path(memory))
        entries = [Entry(place) for place in places]
        for entry in entries:
            progress(f"loading {settings.records} records into {entry.target.title}")
            _load(replace(own, batch=LOAD_BATCH, rate_per_s=0.0, seconds_max=0.0), entry.target, verify)
        try:
            for number in range(rounds):
                for entry in _turned(entries, number):
                    progress(f"round {number + 1} of {rounds}: {entry.target.title}")
                    seeded = replace(own, seed=settings.seed + number)
                    entry.rounds.append(_whole(run(seeded, entry.target.name, verify=verify)))
        except KeyboardInterrupt:
            return _until_now(settings, entries)
    return Comparison(settings, entries)


def _load(settings: Settings, place: Target, verify: bool) -> None:
    try:
        load(settings, place.name, verify=verify)
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt(*([] if place.is_file else e.args)) from None  # files are removed here


def _whole(result: Result) -> Result:
    """A run that was interrupted is not compared with whole ones."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def _until_now(settings: Settings, entries: list[Entry]) -> Comparison:
    done = min(len(entry.rounds) for entry in entries)
    if done == 0:
        raise KeyboardInterrupt
    return Comparison(settings, [Entry(entry.target, entry.rounds[:done]) for entry in entries], interrupted=True)


def _turned(entries: list[Entry], steps: int) -> list[Entry]:
    first = steps % len(entries)
    return entries[first:] + entries[:first]


def _temporary(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    settings.directory.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="compare-", dir=settings.directory)


def _temporary_memory(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dspm-ycsb-compare-", dir=settings.memory_directory)
