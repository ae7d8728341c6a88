"""The file of a SQLite database: opened as it may be used, and never taken for another."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError

from clrsearch.errors import StorageError
from clrsearch.storage.url import StorageUrl

BUSY_SECONDS = 60  # how long a writer waits for the one write lock

_SESSION = (
    "PRAGMA journal_mode=WAL",  # readers never wait for the writer
    "PRAGMA synchronous=NORMAL",  # safe against a killed process under WAL
)


class FileGone(SQLAlchemyError):
    """The file was deleted, moved or replaced while it was open; it does not come back."""


class _Connection(sqlite3.Connection):
    """``frozen`` is what the file was like when it was opened as one that never changes."""

    frozen: tuple[int, ...] | None = None


class SqliteFile:
    """Makes connections to a database file that is there, and to no other in its place.

    Where the file or its folder cannot be written to they only read, and nothing is made beside it.
    """

    def __init__(self, file: Path, options: Mapping[str, Any]) -> None:
        """``options`` are those of the driver, which go over ours."""
        # The driver opens every write with BEGIN IMMEDIATE, so that two writers queue for the lock
        # and neither reads what the other is about to change.
        self._options = {"timeout": BUSY_SECONDS, "isolation_level": "IMMEDIATE", **options}
        self._named = file
        self._path = file.resolve()
        self._wal = Path(f"{self._path}-wal")
        self._inode = self._look()[:2]
        may_write = os.access(self._path, os.W_OK)
        self.read_only = not (may_write and os.access(self._path.parent, os.W_OK | os.X_OK))

    @classmethod
    def of(cls, url: StorageUrl) -> SqliteFile | None:
        """The file of a database; None where that is on a server.

        Raises:
            FileGone: it is not there.
        """
        if url.file is None:
            return None
        _, options = SQLiteDialect_pysqlite().create_connect_args(make_url(url.reveal()))
        return cls(url.file, options)

    def connect(self) -> sqlite3.Connection:
        """A new connection.

        Raises:
            FileGone: the file is no longer there, or another one is.
            StorageError: what is in the write-ahead log cannot be read without writing.
        """
        seen = self.require_same()
        if not self.read_only:
            return self._open("mode=rw")
        if self._logged():
            if not (Path(f"{self._path}-shm").exists() or os.access(self._path.parent, os.W_OK)):
                raise StorageError(
                    f"{self._wal} holds changes that cannot be read where nothing can be written: "
                    "copy both files to a folder of your own"
                )
            return self._open("mode=ro")
        if not self._keeps_log():
            return self._open("mode=ro")
        # SQLite reads no log where it cannot make one, but takes a file for whole that nobody
        # writes: nobody does as long as there is no log
        connection = self._open("mode=ro&immutable=1")
        connection.frozen = seen
        return connection

    def begin_session(self, connection: sqlite3.Connection, *_: object) -> None:
        """Set a new connection up."""
        for statement in () if self.read_only else _SESSION:
            connection.execute(statement)

    def check(self, connection: _Connection, *_: object) -> None:
        """Before a connection is used.

        Raises:
            FileGone: the file is no longer there, or another one is.
            DisconnectionError: the file has changed under a connection that took it for whole.
        """
        seen = self.require_same()
        if connection.frozen not in (None, seen):
            raise DisconnectionError

    def require_same(self) -> tuple[int, ...]:
        """What the file is like now: a state that differs once somebody has written.

        Raises:
            FileGone: the file is no longer there, or another one is.
        """
        seen = self._look()
        if seen[:2] != self._inode:
            raise FileGone("the file was replaced by another one while it was open")
        return seen

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._named.stat()
        except FileNotFoundError as error:
            raise FileGone("the file was deleted or moved while it was open") from error
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, self._logged()

    def _logged(self) -> int:
        """How many bytes lie in the write-ahead log: it is there while somebody writes."""
        return self._wal.stat().st_size if self._wal.exists() else 0

    def _keeps_log(self) -> bool:
        """Whether who writes to it keeps a log: https://www.sqlite.org/fileformat.html 1.3.3."""
        with self._path.open("rb") as file:
            return file.read(20)[18:] == b"\x02\x02"

    def _open(self, mode: str) -> _Connection:
        uri = f"{self._path.as_uri()}?{mode}"
        return sqlite3.connect(uri, uri=True, factory=_Connection, **self._options)
