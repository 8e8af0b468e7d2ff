"""A cluster's key as it was read: it knows its file, which errors name. Nothing shows the key itself."""

from __future__ import annotations

from pathlib import Path


class Key(bytes):
    """The secret, and where it came from."""

    file: Path

    def __new__(cls, secret: bytes, file: Path) -> Key:
        """The secret as `file` has it, without what surrounds it."""
        key = super().__new__(cls, secret)
        key.file = file
        return key

    def __repr__(self) -> str:
        return f"Key(… of {self.file})"


def misfit(key: bytes) -> str:
    """What an error says of a key that its cluster does not know."""
    if isinstance(key, Key):
        return f"the key in {key.file} does not fit this cluster: its nodes have another one"
    return "the peer does not know this cluster's key"
