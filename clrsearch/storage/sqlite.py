"""SQLite database files: opened with the access they allow, and guarded against replacement."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from tenacity import (
    retry,
    retry_if_exception_message,
    stop_after_delay,
    wait_random,
)

from clrsearch.errors import StorageError
from clrsearch.storage.url import StorageUrl

BUSY_SECONDS = 60  # how long a writer waits for the write lock

_WAL = "PRAGMA journal_mode=WAL"  # readers never wait for the writer
_SESSION = "PRAGMA synchronous=NORMAL"  # safe against a killed process under WAL


class FileGone(SQLAlchemyError):
    """The file was deleted, moved or replaced while it was open; this is permanent."""


class _Connection(sqlite3.Connection):
    """``frozen`` is the file's state when it was opened as immutable."""

    frozen: tuple[int, ...] | None = None


class SqliteFile:
    """Connects to an existing database file, and never to another one that replaces it.

    If the file or its folder is not writable, connections are read-only and create no files.
    """

    def __init__(self, file: Path, options: Mapping[str, Any]) -> None:
        """``options`` are driver options, which override ours."""
        # The driver opens every write with BEGIN IMMEDIATE, so that writers queue for the lock
        # and none reads data that another is about to change.
        self._options = {"timeout": BUSY_SECONDS, "isolation_level": "IMMEDIATE", **options}
        self._named = file
        self._path = file.resolve()
        self._wal = Path(f"{self._path}-wal")
        self._inode = self._look()[:2]
        may_write = os.access(self._path, os.W_OK)
        self.read_only = not (may_write and os.access(self._path.parent, os.W_OK | os.X_OK))

    @classmethod
    def of(cls, url: StorageUrl) -> SqliteFile | None:
        """The file of a database; None for a database server.

        Raises:
            FileGone: the file does not exist.
        """
        if url.file is None:
            return None
        _, options = SQLiteDialect_pysqlite().create_connect_args(make_url(url.reveal()))
        return cls(url.file, options)

    def connect(self) -> sqlite3.Connection:
        """Open a new connection.

        Raises:
            FileGone: the file no longer exists, or was replaced.
            StorageError: the write-ahead log has data that cannot be read without write access.
        """
        seen = self.require_same()
        if not self.read_only:
            return self._open("mode=rw")
        if self._logged():
            if not (Path(f"{self._path}-shm").exists() or os.access(self._path.parent, os.W_OK)):
                raise StorageError(
                    f"{self._wal} has changes that cannot be read without write access: "
                    "copy both files to a folder that you can write to"
                )
            return self._open("mode=ro")
        if not self._keeps_log():
            return self._open("mode=ro")
        # In WAL mode SQLite must be able to create a log, unless the file is opened as immutable.
        # That is safe as long as nobody writes to it: without a log, nobody does.
        connection = self._open("mode=ro&immutable=1")
        connection.frozen = seen
        return connection

    def begin_session(self, connection: sqlite3.Connection, *_: object) -> None:
        """Set up a new connection."""
        if not self.read_only:
            _log_ahead(connection)
            connection.execute(_SESSION)

    def check(self, connection: _Connection, *_: object) -> None:
        """Check the file before a connection is used.

        Raises:
            FileGone: the file no longer exists, or was replaced.
            DisconnectionError: the file has changed since the connection opened it as immutable.
        """
        seen = self.require_same()
        if connection.frozen not in (None, seen):
            raise DisconnectionError

    def require_same(self) -> tuple[int, ...]:
        """The file's current state, which differs after every write.

        Raises:
            FileGone: the file no longer exists, or was replaced.
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
        """Size of the write-ahead log in bytes; the log exists while somebody writes."""
        return self._wal.stat().st_size if self._wal.exists() else 0

    def _keeps_log(self) -> bool:
        """Whether the file is in WAL mode: https://www.sqlite.org/fileformat.html 1.3.3."""
        with self._path.open("rb") as file:
            return file.read(20)[18:] == b"\x02\x02"

    def _open(self, mode: str) -> _Connection:
        uri = f"{self._path.as_uri()}?{mode}"
        return sqlite3.connect(uri, uri=True, factory=_Connection, **self._options)


@retry(
    retry=retry_if_exception_message(match="database is locked"),
    stop=stop_after_delay(BUSY_SECONDS),
    wait=wait_random(0.01, 0.05),
    reraise=True,
)
def _log_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log: of processes that do so first, SQLite lets all but one fail."""
    connection.execute(_WAL)
