"""A WiredTiger path, in the cluster or in a directory, and one table of texts and bytes in it.

The log is on and every commit waits for it: `transaction_sync=(enabled,method=fsync)`, on every kind of place. What
lies in the cluster needs an extension, and a home of its own that stays empty.

A connection belongs to its process and is shared by its threads (`shared`); sessions and cursors belong to one thread.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from dspm import _native
from dspm.bench.wiredtiger.library import Library
from dspm.errors import DspmError
from dspm.integrations.mongo.engine_config import add_extension

DURABLE = "create,log=(enabled),transaction_sync=(enabled,method=fsync),statistics=(fast)"
SCHEMA = "key_format=S,value_format=u"
FILE_SIZE = b"block-manager: file size in bytes"
"""How the statistics call it; its number differs between versions."""
ROLLBACK = -31800
NOT_FOUND = -31803


class WiredTigerError(DspmError):
    """A call failed. `number` is WiredTiger's, or the system's."""

    def __init__(self, message: str, hint: str = "WiredTiger says more on stderr", number: int = 0) -> None:
        super().__init__(message, hint)
        self.number = number


def _error(library: Library, what: str, number: int) -> WiredTigerError:
    text = f"{what}: {library.strerror(number)} ({number}, WiredTiger {library.version})"
    return WiredTigerError(text, number=number)


@dataclass(frozen=True)
class Place:
    """Where a path lies: the dataset of a cluster by its configuration file, or a directory."""

    directory: str = ""
    dataset: str = ""
    config: str = ""

    def configuration(self, library: Library, more: str) -> str:
        """What wiredtiger_open is given."""
        settings = f"{DURABLE},{more}"
        if self.directory:
            return settings
        options = {"dataset": self.dataset, "version": library.version}
        if self.config:
            options["config"] = self.config
        return add_extension(settings, str(_native.library_path()), library.entry, options)


class Connection:
    """An open path."""

    def __init__(self, library: Library, place: Place, cache_bytes: int) -> None:
        self.library = library
        self._home: tempfile.TemporaryDirectory[str] | None = None
        home = place.directory
        if not home:
            self._home = tempfile.TemporaryDirectory(prefix="dspm-wiredtiger-")
            home = self._home.name
        out = library.ffi.new("wt_connection **")
        config = place.configuration(library, f"cache_size={cache_bytes},session_max=300")
        code = library.lib.wiredtiger_open(home.encode(), library.ffi.NULL, config.encode(), out)
        if code:
            self._forget_home()
            raise _error(library, f"cannot open {place.directory or place.dataset}", code)
        self._open = out[0]

    def table(self, uri: str, *, create: bool = False, more: str = "") -> Table:
        """The table, through a session of its own; with `create` a new and empty one, `more` being said of it."""
        out = self.library.ffi.new("wt_session **")
        null = self.library.ffi.NULL
        code = self._open.open_session(self._open, null, null, out)
        if code:
            raise _error(self.library, "cannot open a session", code)
        return Table(self.library, out[0], uri, f"{SCHEMA},{more}" if create else "")

    def close(self) -> None:
        """Ends it, with a checkpoint."""
        code = self._open.close(self._open, self.library.ffi.NULL)
        self._forget_home()
        if code:
            raise _error(self.library, "cannot close", code)

    def _forget_home(self) -> None:
        if self._home is not None:
            self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Table:
    """A table through one session, for one thread. Methods raise WiredTigerError; a key that is not there is None."""

    def __init__(self, library: Library, session: Any, uri: str, schema: str) -> None:
        self.library = library
        self.uri = uri
        self._session = session
        self._ffi = library.ffi
        if schema:
            self._must("drop", session.drop(session, uri.encode(), b"force"))
            self._must("create", session.create(session, uri.encode(), schema.encode()))
        self._cursor = self._open_cursor(uri, self._ffi.NULL)
        self._item = self._ffi.new("wt_item *")
        self._text = self._ffi.new("char **")
        self._exact = self._ffi.new("int *")

    def _open_cursor(self, uri: str, config: Any) -> Any:
        out = self._ffi.new("wt_cursor **")
        null = self._ffi.NULL
        code = self._session.open_cursor(self._session, uri.encode(), null, config, out)
        self._must(f"cannot open {uri}", code)
        return out[0]

    def _must(self, what: str, code: int) -> None:
        if code:
            raise _error(self.library, what, code)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits at the end of the block, durably if anything was written; rolls back if it raises."""
        session, null = self._session, self._ffi.NULL
        self._must("begin", session.begin_transaction(session, b"isolation=snapshot"))
        try:
            yield
        except BaseException:
            session.rollback_transaction(session, null)
            raise
        self._must("commit", session.commit_transaction(session, null))

    def get(self, key: str) -> bytes | None:
        """The value."""
        cursor = self._cursor
        name = self._ffi.new("char[]", key.encode())  # WiredTiger reads it until the search is over
        cursor.set_key(cursor, name)
        code = cursor.search(cursor)
        if code == NOT_FOUND:
            return None
        self._must("search", code)
        value = self._value()
        self._must("reset", cursor.reset(cursor))
        return value

    def put(self, key: str, value: bytes) -> None:
        """Writes the value, whether or not there is one."""
        cursor, item = self._cursor, self._item
        # Both are read until the insert is over.
        name, content = self._ffi.new("char[]", key.encode()), self._ffi.from_buffer(value)
        item.data, item.size = content, len(value)
        cursor.set_key(cursor, name)
        cursor.set_value(cursor, item)
        self._must("insert", cursor.insert(cursor))

    def scan(self, key: str, count: int) -> list[bytes]:
        """The values of up to so many records from that key on, in key order."""
        cursor = self._cursor
        name = self._ffi.new("char[]", key.encode())  # WiredTiger reads it until the search is over
        cursor.set_key(cursor, name)
        code = cursor.search_near(cursor, self._exact)
        if code == 0 and self._exact[0] < 0:
            code = cursor.next(cursor)
        values: list[bytes] = []
        while code == 0 and len(values) < count:
            values.append(self._value())
            code = cursor.next(cursor) if len(values) < count else 0
        if code != NOT_FOUND:
            self._must("scan", code)
        self._must("reset", cursor.reset(cursor))
        return values

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Every key with its value."""
        cursor = self._cursor
        self._must("reset", cursor.reset(cursor))
        while (code := cursor.next(cursor)) == 0:
            self._must("get_key", cursor.get_key(cursor, self._text))
            yield self._ffi.string(self._text[0]).decode(), self._value()
        if code != NOT_FOUND:
            self._must("next", code)

    def _value(self) -> bytes:
        self._must("get_value", self._cursor.get_value(self._cursor, self._item))
        return bytes(self._ffi.buffer(self._item.data, self._item.size))

    def file_bytes(self) -> int:
        """Bytes of the table's file, as of the newest checkpoint."""
        self.checkpoint()
        cursor = self._open_cursor(f"statistics:{self.uri}", b"statistics=(size)")
        text, shown, number = self._text, self._ffi.new("char **"), self._ffi.new("int64_t *")
        try:
            while cursor.next(cursor) == 0:
                self._must("statistics", cursor.get_value(cursor, text, shown, number))
                if self._ffi.string(text[0]) == FILE_SIZE:
                    return int(number[0])
            raise WiredTigerError(f"WiredTiger {self.library.version} tells no size of {self.uri}")
        finally:
            cursor.close(cursor)

    def close(self) -> None:
        """Ends the session, and the cursor with it."""
        self._must("close", self._session.close(self._session, self._ffi.NULL))

    def checkpoint(self) -> None:
        """Writes everything to the files."""
        self._must("checkpoint", self._session.checkpoint(self._session, self._ffi.NULL))


_shared: dict[Place, tuple[Connection, int]] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def shared(library: Library, place: Place, cache_bytes: int) -> Iterator[Connection]:
    """The process's one connection to a path: opened for the first who asks, closed when the last has ended.

    WiredTiger itself refuses to open a path twice in one process.
    """
    with _lock:
        connection, users = _shared.get(place) or (Connection(library, place, cache_bytes), 0)
        _shared[place] = (connection, users + 1)
    try:
        yield connection
    finally:
        with _lock:
            connection, users = _shared[place]
            if users == 1:
                del _shared[place]
                connection.close()
            else:
                _shared[place] = (connection, users - 1)
