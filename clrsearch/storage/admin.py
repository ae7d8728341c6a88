"""Database maintenance."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alembic.util import CommandError

from clrsearch.errors import StorageError
from clrsearch.storage.engine import cause, optuna_storage, require_version, storage_errors
from clrsearch.storage.outage import DATABASE_ERRORS
from clrsearch.storage.place import require_place
from clrsearch.storage.slots import add_missing_columns, create_slot_table
from clrsearch.storage.sqlite import SqliteFile
from clrsearch.storage.url import StorageUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """Optuna's schema before and after, and the columns added to the slot table."""

    before: str
    after: str
    columns: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was upgraded."""
        return self.before != self.after or bool(self.columns)


def upgrade(url: StorageUrl) -> Upgraded:
    """Upgrade the tables to the versions used by this Optuna and this package.

    Raises:
        StorageError: there is no database, its schema is newer, or a change failed.
    """
    require_place(url)
    with storage_errors(url):
        storage = optuna_storage(url, SqliteFile.of(url))
        try:
            require_version(url, storage, or_older=True)
            before = storage.get_current_version()
            try:
                with _silent():
                    storage.upgrade()
            except (CommandError, *DATABASE_ERRORS) as error:
                raise StorageError(f"{url}: the upgrade failed: {cause(error)}") from error
            create_slot_table(storage.engine)
            columns = add_missing_columns(storage.engine)
            after = storage.get_current_version()
        finally:
            storage.remove_session()
            storage.engine.dispose()
    return Upgraded(before=before, after=after, columns=tuple(columns))


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress log lines, since Optuna's migration enables alembic's own."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
