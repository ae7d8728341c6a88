"""Database URLs that never show their passwords."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import platformdirs
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from clrsearch.errors import StorageError

STORAGE_VARIABLE = "CLRSEARCH_STORAGE"
FILE_VARIABLE = "CLRSEARCH_STORAGE_FILE"

_DRIVERS = {"sqlite": "sqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}
_FORMS = "sqlite:///FILE, postgresql://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE"
_UNSHOWN = " (the value is not shown, as it may contain a password)"
_SECRET = re.compile("pass(?!file)|pwd|secret|token|scram|credential", re.IGNORECASE)
_DSN = re.compile("[;=&]")  # separators in other connection string formats


class StorageUrl:
    """A SQLAlchemy database URL; ``str`` and ``repr`` show neither its password nor its query.

    ``kept_in`` is the file it was read from, if any. It cannot be pickled.

    Raises:
        StorageError: SQLAlchemy cannot parse the text, the database is not supported, or its driver
            is not installed. The message shows nothing of the text, because an invalid URL may hold
            a password anywhere.
    """

    __slots__ = ("_url", "kept_in")

    def __init__(self, text: str, *, kept_in: Path | None = None) -> None:
        self.kept_in = kept_in
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):  # ValueError: a port that is not a number
            raise StorageError(f"not a database URL: use {_FORMS}{_UNSHOWN}") from None
        backend = url.get_backend_name()
        if backend == "postgres":
            raise StorageError("SQLAlchemy does not accept postgres://: use postgresql://")
        if backend not in _DRIVERS:
            raise StorageError(f"that database is not supported: use {_FORMS}{_UNSHOWN}")
        if backend == "sqlite":
            if url.host or url.username:
                raise StorageError("a SQLite URL has three slashes: sqlite:///FILE")
            if url.database in (None, "", ":memory:"):
                raise StorageError(
                    "an in-memory database cannot be shared with workers: use sqlite:///FILE"
                )
            self._url: URL = url
            return
        _require_server(url, text)
        driver = _DRIVERS[backend]
        if importlib.util.find_spec(driver) is None:
            raise StorageError(
                f"{backend} needs a driver: pip install 'clrsearch[{_EXTRAS[driver]}]'"
            )
        # Optuna treats MariaDB as mysql.
        family = "postgresql" if backend == "postgresql" else "mysql"
        self._url = url.set(drivername=f"{family}+{driver}")

    @classmethod
    def default(cls) -> StorageUrl:
        """A SQLite file in the platform's user data folder, which is created if missing.

        Raises:
            StorageError: it cannot be created.
        """
        folder = platformdirs.user_data_path("clrsearch", appauthor=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"your data folder {folder} cannot be created: {error.strerror}; set a database "
                f"elsewhere with --storage or {STORAGE_VARIABLE}"
            ) from error
        return cls(f"sqlite:///{folder / 'studies.db'}")

    @classmethod
    def from_file(cls, path: Path) -> StorageUrl:
        """Read the URL from a one-line file, which keeps its password out of sight.

        Raises:
            StorageError: the file cannot be read, or holds no URL.
        """
        path = path.absolute()
        try:
            lines = path.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            if ":/" in str(path) or _DSN.search(str(path)):
                raise StorageError(
                    f"the storage file cannot be read: {reason} (its name is not shown, as it "
                    "looks like a URL, which may contain a password)"
                ) from None
            raise StorageError(f"the storage file {path} cannot be read: {reason}") from error
        if len(lines) != 1:
            raise StorageError(f"the storage file {path} must contain exactly one database URL")
        return cls(lines[0], kept_in=path).absolute()

    def reveal(self) -> str:
        """The URL with its password, for the database driver only."""
        return self._url.render_as_string(hide_password=False)

    def environment(self) -> Mapping[str, str]:
        """Environment variables that point another process of this package to the same database."""
        if self.kept_in is not None:
            return {FILE_VARIABLE: str(self.kept_in), STORAGE_VARIABLE: ""}
        return {FILE_VARIABLE: "", STORAGE_VARIABLE: self.reveal()}

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return self._url.get_backend_name()

    @property
    def user(self) -> str | None:
        """The user name in the URL, or None."""
        return self._url.username

    @property
    def has_password(self) -> bool:
        """Whether the URL itself holds a password."""
        return self._url.password is not None or any(map(_SECRET.search, self._url.query))

    @property
    def has_options(self) -> bool:
        """Whether the URL has options in its query."""
        return bool(self._url.query)

    @property
    def file(self) -> Path | None:
        """The SQLite file, absolute; None for a database server."""
        if self.dialect != "sqlite":
            return None
        assert self._url.database is not None
        return Path(self._url.database).absolute()

    def absolute(self) -> StorageUrl:
        """The same database, independent of the current working directory."""
        if self.file is None:
            return self
        return StorageUrl(
            self._url.set(database=str(self.file)).render_as_string(False), kept_in=self.kept_in
        )

    def __str__(self) -> str:
        shown = self._url.set(query={}).render_as_string(hide_password=True)
        return f"{shown}?***" if self._url.query else shown

    def __repr__(self) -> str:
        return f"StorageUrl({str(self)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a StorageUrl may contain a password and cannot be pickled")


def _require_server(url: URL, text: str) -> None:
    """Reject a server URL that SQLAlchemy parses, but not as intended.

    Raises:
        StorageError: its parts are not separated as in a URL, or it names no database.
    """
    credentials, at, place = text.partition("?")[0].partition("://")[2].rpartition("@")
    if "@" in credentials or (at and url.username is None):
        raise StorageError("an @ or a / in a user's name or password must be written as %40 or %2F")
    if _DSN.search(credentials.partition(":")[0] + place):
        raise StorageError(f"not a database URL: use {_FORMS}{_UNSHOWN}")
    if not url.database:
        raise StorageError(f"the URL names no database on the server: use {_FORMS}")
