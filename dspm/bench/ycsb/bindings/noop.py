"""The database that does nothing at once: what it reaches is the most that the client can drive."""

# The methods are documented where they are declared, in `Binding`.
# ruff: noqa: D102
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dspm.bench.ycsb.bindings.base import Binding, Facts, Status


class NoopBinding(Binding):
    """Answers OK and keeps nothing. Changes are computed, so that the client does all its own work."""

    keeps_data = False

    def create(self, fields: int) -> None:
        pass

    def read(self, key: str) -> Status:
        return Status.OK

    def scan(self, key: str, count: int) -> Status:
        return Status.OK

    def update(self, key: str, field: int, value: str) -> Status:
        return Status.OK

    def insert(self, records: Sequence[tuple[str, ...]]) -> Status:
        return Status.OK

    def read_modify_write(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        change(None)
        return Status.OK

    def rows(self) -> Iterator[tuple[object, ...]]:
        return iter(())

    def facts(self) -> Facts:
        return Facts(0, 0, 0, "none", "none: nothing is kept", 0)

    def close(self) -> None:
        pass
