"""Where studies are kept: a database URL that never shows its password."""

from __future__ import annotations

from pathlib import Path

import platformdirs
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from clrsearch.errors import StorageError


class StorageUrl:
    """A SQLAlchemy database URL; ``str`` and ``repr`` show it without its password.

    Raises:
        StorageError: SQLAlchemy cannot read the text, or the database is none that is supported.
    """

    __slots__ = ("_url",)

    def __init__(self, text: str) -> None:
        try:
            self._url: URL = make_url(text)
        except ArgumentError as error:
            hint = f"; did you mean sqlite:///{text}?" if "://" not in text and text else ""
            raise StorageError(f"not a database URL: {text!r}{hint}") from error
        if self._url.get_backend_name() != "sqlite":
            raise StorageError(
                f"{self._url.get_backend_name()} is not supported; "
                "studies are kept in SQLite: sqlite:///studies.db"
            )
        if self._url.database in (None, "", ":memory:"):
            raise StorageError(
                "a database in memory cannot be shared with workers: sqlite:///FILE names a file"
            )

    @classmethod
    def default(cls) -> StorageUrl:
        """One SQLite file in the platform's folder for user data, which is made if missing."""
        folder = platformdirs.user_data_path("clrsearch", appauthor=False, ensure_exists=True)
        return cls(f"sqlite:///{folder / 'studies.db'}")

    def reveal(self) -> str:
        """The URL with its password, for the database driver alone."""
        return self._url.render_as_string(hide_password=False)

    @property
    def file(self) -> Path:
        """The SQLite file, absolute."""
        assert self._url.database is not None
        return Path(self._url.database).absolute()

    def absolute(self) -> StorageUrl:
        """The same database, whatever the current folder of the process that opens it."""
        return StorageUrl(self._url.set(database=str(self.file)).render_as_string(False))

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"StorageUrl({str(self)!r})"
