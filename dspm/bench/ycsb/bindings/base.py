"""What a database must offer to be measured. One subclass a kind of database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """How an operation ended, named as YCSB names it."""

    OK = 0
    NOT_FOUND = 1
    ERROR = 2


@dataclass(frozen=True)
class Facts:
    """What a database says of itself. `copies` is how many stores hold a commit when it is acknowledged."""

    records: int
    size_bytes: int
    page_size: int
    journal_mode: str
    durability: str
    copies: int


class Binding(ABC):
    """One connection of one process. Methods raise only what makes the rest of the run pointless."""

    retries: int = 0
    """How often an operation ran again because another writer was in the way."""
    last_error: str = ""
    """What the last operation that ended in `Status.ERROR` met."""
    keeps_data: bool = True
    """Whether what is written can be read back, and so verified."""

    @abstractmethod
    def create(self, fields: int) -> None:
        """Makes an empty table, in place of the one that is there."""

    @abstractmethod
    def read(self, key: str) -> Status:
        """Reads all fields of one record."""

    @abstractmethod
    def scan(self, key: str, count: int) -> Status:
        """Reads all fields of up to `count` records from `key` on, in key order."""

    @abstractmethod
    def update(self, key: str, field: int, value: str) -> Status:
        """Writes one field of one record."""

    @abstractmethod
    def insert(self, records: Sequence[tuple[str, ...]]) -> Status:
        """Adds records, each its key and then its fields, in one transaction."""

    @abstractmethod
    def read_modify_write(self, key: str, field: int, change: Callable[[object], str]) -> Status:
        """Reads a record and writes `change(old value)` to one field, in one transaction."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[object, ...]]:
        """Every record, each its key and then its fields."""

    @abstractmethod
    def facts(self) -> Facts:
        """The state of the database now; raises DataError if there is no table."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""
