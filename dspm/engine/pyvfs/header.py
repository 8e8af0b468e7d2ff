"""The database header, bytes 0-99 of SQLite's page 1: what the VFS reads and changes of it.

Only a plain SQLite header is touched; page 1 of an encrypted database is left alone. https://sqlite.org/fileformat.html
"""

from __future__ import annotations

SIZE = 100
"""Bytes of the header."""

_MAGIC = b"SQLite format 3\0"
_PAGE_SIZE = slice(16, 18)
_VERSIONS = slice(18, 20)
"""File format versions for writing and reading; 2 means write-ahead log."""
_COUNTER = slice(24, 28)
_PAGE_COUNT = slice(28, 32)
_SCHEMA_COOKIE = slice(40, 44)
"""What a connection knows its schema by."""
_VALID_FOR = slice(92, 96)
"""The change counter for which version and page count are valid."""


def is_plain(start: bytes) -> bool:
    """True if bytes from the start of the database show SQLite's header."""
    return start.startswith(_MAGIC)


def without_wal(start: bytes) -> bytes:
    """The same with the rollback-journal format where the write-ahead format is set.

    There is never a log, and SQLite cannot open such a file without shared memory.
    """
    if len(start) < _VERSIONS.stop or not is_plain(start):
        return start
    return start[: _VERSIONS.start] + start[_VERSIONS].replace(b"\2", b"\1") + start[_VERSIONS.stop :]


def disguised(start: bytes, moves: int) -> bytes:
    """The same with the schema's number that a database shows after so many moves in time, and back."""
    if not moves or len(start) < _SCHEMA_COOKIE.stop or not is_plain(start):
        return start
    # Spread over all bits: numbers of schemas are small, so those of two times are never the same.
    mask = moves * 0x9E3779B1 & 0xFFFFFFFF
    number = int.from_bytes(start[_SCHEMA_COOKIE], "big") ^ mask
    return start[: _SCHEMA_COOKIE.start] + number.to_bytes(4, "big") + start[_SCHEMA_COOKIE.stop :]


def counter(header: bytes) -> int:
    """The change counter."""
    return int.from_bytes(header[_COUNTER], "big")


def with_counter(header: bytes, to: int) -> bytes:
    """The same with another change counter; page count and version stay valid for it if they were."""
    changed = bytearray(header)
    changed[_COUNTER] = (to & 0xFFFFFFFF).to_bytes(4, "big")
    if _is_page_count_valid(header):
        changed[_VALID_FOR] = changed[_COUNTER]
    return bytes(changed)


def database_size(header: bytes) -> int | None:
    """The size of the database in bytes that the header tells, if it can be trusted."""
    if not is_plain(header) or not _is_page_count_valid(header):
        return None
    page_size = int.from_bytes(header[_PAGE_SIZE], "big")
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(header[_PAGE_COUNT], "big")
    return pages * page_size if pages > 0 and page_size >= 512 else None


def _is_page_count_valid(header: bytes) -> bool:
    return header[_COUNTER] == header[_VALID_FOR]
