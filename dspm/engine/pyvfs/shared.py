"""What all databases of the process share: journals, stages, holds, and what failed last.

A forked child starts with its own, empty: the parent's threads may have left theirs in any state.
"""

from __future__ import annotations

import os
import threading

from dspm.engine.pyvfs.attach import Stages
from dspm.engine.pyvfs.journals import Journals
from dspm.txn.dataset import Dataset


class Holds:
    """`locking_mode=EXCLUSIVE` of several handles on one dataset: the lease is held until the last one lets go."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._lock = threading.Lock()

    def take(self, dataset: Dataset) -> None:
        """One more handle holds the dataset."""
        self._change(dataset, 1)

    def drop(self, dataset: Dataset) -> None:
        """One handle less."""
        self._change(dataset, -1)

    def _change(self, dataset: Dataset, by: int) -> None:
        with self._lock:
            before = self._counts.pop(dataset.id, 0)
            if before + by > 0:
                self._counts[dataset.id] = before + by
            if 0 in (before, before + by):
                dataset.hold(before + by > 0)


class Shared:
    """One process's shared state."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Begins with nothing."""
        self.journals = Journals()
        self.stages = Stages()
        self.holds = Holds()
        self.last_error = ""
