"""The VFS itself: opening, deleting and finding databases and journals. Everything else is the base VFS's business:
temporary files, libraries, time and randomness.
"""

from __future__ import annotations

from typing import Any

import apsw

from dspm.engine.pyvfs import attach, codes, names
from dspm.engine.pyvfs.codes import During
from dspm.engine.pyvfs.database import Database
from dspm.engine.pyvfs.journals import Journal, JournalFile
from dspm.engine.pyvfs.names import Kind
from dspm.engine.pyvfs.shared import Shared
from dspm.errors import DspmError, NotFoundError, UsageError
from dspm.netram.names import clean
from dspm.txn.catalog import locate, remove
from dspm.txn.dataset import Dataset

NAME = "dspm-py"
"""What the VFS is called."""

_CONFIG_KEYS = ("cluster", "nodes", "key_file", "namespace")
"""URI parameters that are keys of the configuration."""

_READONLY, _READWRITE, _CREATE = apsw.SQLITE_OPEN_READONLY, apsw.SQLITE_OPEN_READWRITE, apsw.SQLITE_OPEN_CREATE
_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_OURS = apsw.SQLITE_OPEN_MAIN_DB | _JOURNALS | apsw.SQLITE_OPEN_WAL


class PythonVfs(apsw.VFS):
    """`dspm-py`, registered with apsw's SQLite for as long as the object lives."""

    def __init__(self) -> None:
        self._base = "unix" if "unix" in apsw.vfs_names() else ""
        self._shared = Shared()
        super().__init__(NAME, self._base, maxpathname=names.NAME_MAX, iVersion=2)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        """A :class:`Database`, a journal, or a temporary file of the base VFS."""
        wanted = flags[0]
        if name is None or not wanted & _OURS:
            return apsw.VFSFile(self._base, name, flags)
        if isinstance(name, apsw.URIFilename):
            return self._open_database(name, flags)
        if not wanted & _JOURNALS:
            raise codes.failure(f"{name}: there is no write-ahead log", apsw.SQLITE_CANTOPEN)
        journal = self._journal(name, wanted)
        if journal is None:
            raise codes.failure(f"{name}: no such journal", apsw.SQLITE_CANTOPEN)
        flags[1] = wanted
        return JournalFile(journal)

    def _open_database(self, uri: apsw.URIFilename, flags: list[int]) -> Database:
        wanted = flags[0]
        immutable = uri.uri_boolean("immutable", False)
        as_of = uri.uri_parameter("as_of")
        read_only = immutable or as_of is not None or not wanted & _READWRITE
        parameters = {p: uri.uri_parameter(p) for p in uri.parameters}
        try:
            if uri.uri_boolean("nolock", False):
                raise UsageError("nolock=1 cannot work: the locks are the transactions", "leave it out")
            dataset = Dataset.open(
                uri.filename(),
                create=not read_only and bool(wanted & _CREATE),
                exclusive=not read_only and bool(wanted & _CREATE) and bool(wanted & apsw.SQLITE_OPEN_EXCLUSIVE),
                readonly=read_only,
                config=parameters.get("config"),
                settings={k: v for k, v in parameters.items() if k in _CONFIG_KEYS and v is not None},
            )
        except DspmError as e:
            raise self._failed(uri.filename(), e, During.OPEN) from e
        database = Database(self._shared, uri.filename(), dataset, read_only)
        if as_of is not None:
            database.open_as_of(as_of)
        elif immutable:
            database.pin()
        flags[1] = wanted & ~(_READWRITE | _CREATE) | _READONLY if read_only else wanted
        return database

    def _journal(self, name: str, wanted: int) -> Journal | None:
        journals = self._shared.journals
        if wanted & _CREATE:
            return journals.create(name, must_be_new=bool(wanted & apsw.SQLITE_OPEN_EXCLUSIVE))
        search = apsw.SQLITE_OPEN_MAIN_JOURNAL | _READONLY
        if wanted & search == search:
            # Only the search for a hot journal opens one so, and there is never one. Another handle may have begun or
            # ended a transaction since SQLite asked for its lock, so what is there now says nothing.
            return Journal()
        return journals.get(name)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Deleting a super-journal is the decision of its transaction."""
        kind = names.kind(filename)
        if kind is Kind.SUPER:
            attach.publish_of(self._shared.stages, filename)
        if self._shared.journals.delete(filename):
            return
        try:
            if kind is not Kind.MAIN:
                raise NotFoundError("no such journal")
            remove(filename)
        except DspmError as e:
            raise self._failed(filename, e, During.DELETE) from e

    def xAccess(self, pathname: str, flags: int) -> bool:
        """Whether it exists; a journal counts while a transaction uses it."""
        if flags != apsw.SQLITE_ACCESS_EXISTS:
            # PRAGMA temp_store_directory asks about a real directory.
            return super().xAccess(pathname, flags)
        journals = self._shared.journals
        match names.kind(pathname):
            case Kind.WAL:
                return False
            case Kind.JOURNAL:
                return journals.is_in_use(pathname)
            case Kind.SUPER:
                # Else the super-journal of a main database on another VFS.
                return journals.get(pathname) is not None or super().xAccess(pathname, flags)
        try:
            locate(pathname)
        except NotFoundError:
            return False
        except DspmError as e:
            raise self._failed(pathname, e, During.EXISTS) from e
        return True

    def xFullPathname(self, name: str) -> str:
        """The dataset's name for what a program typed."""
        cleaned = clean(name)
        if why := names.refuse(cleaned):
            raise self._failed(name, UsageError(why), During.OPEN)
        return cleaned

    def _failed(self, name: str, error: DspmError, during: During) -> apsw.Error:
        result = codes.code(error, during)
        text = codes.text(name, error)
        if not codes.is_ordinary(result):
            self._shared.last_error = text
            apsw.log(result, f"{NAME}: {text}")
        return codes.failure(text, result)
