"""Opening the database: one engine for Optuna's tables and ours, and one border for its errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, SQLAlchemyError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from clrsearch.errors import StorageError
from clrsearch.storage.slots import create_slot_table
from clrsearch.storage.url import StorageUrl

BUSY_SECONDS = 60  # how long a writer waits for SQLite's one write lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database: Optuna's storage, and the engine under it that the slot table shares."""

    url: StorageUrl
    optuna: RDBStorage
    engine: sqlalchemy.Engine


@contextmanager
def open_database(url: StorageUrl, *, create: bool = False) -> Iterator[Database]:
    """The database at ``url`` while the block lasts; its tables are made where ``create`` asks.

    Every error of the database within the block leaves it as a :class:`StorageError`.

    Raises:
        StorageError: it cannot be opened, read or written, in one line that names the cause.
    """
    require_place(url, create=create)
    with storage_errors(url):
        database = _open(url)
        try:
            yield database
        finally:
            database.optuna.remove_session()
            database.engine.dispose()


def require_place(url: StorageUrl, *, create: bool = False) -> None:
    """Refuse a database file that is not there, or with ``create`` a folder that cannot hold it.

    Raises:
        StorageError: naming the file or the folder.
    """
    folder = url.file.parent
    if not folder.is_dir():
        raise StorageError(f"the folder {folder} of the database does not exist")
    if url.file.is_dir():
        raise StorageError(f"{url.file} is a folder, not a database file")
    if not url.file.exists():
        if not create:
            raise StorageError(f"no studies at {url}: clrsearch run makes the file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(
                f"the folder {folder} is read-only: the database needs to write there"
            )


@contextmanager
def storage_errors(url: StorageUrl) -> Iterator[None]:
    """Around calls into the database: what it raises becomes a :class:`StorageError`."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StorageError(f"{url}: {_cause(error)}") from error
    except KeyError as error:
        if error.args != (NOT_FOUND_MSG,):
            raise
        raise StorageError(f"{url}: the study has been deleted meanwhile") from error


def _cause(error: BaseException) -> str:
    """The driver's own words: Optuna's and SQLAlchemy's wrappers say less."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SQLAlchemyError) and getattr(error, "orig", None) is not None:
        error = error.orig  # type: ignore[attr-defined]
    return str(error).strip() or type(error).__name__


def _made_by_another(error: BaseException) -> bool:
    """Whether a table or its first row appeared while this process was making it too."""
    text = str(error)
    return isinstance(error, OperationalError | IntegrityError) and (
        "already exists" in text or "UNIQUE constraint" in text
    )


@retry(
    retry=retry_if_exception(_made_by_another),
    stop=stop_after_attempt(5),
    wait=wait_random(0.05, 0.3),
    reraise=True,
)
def _open(url: StorageUrl) -> Database:
    # The driver then opens every write with BEGIN IMMEDIATE, so that two writers queue for the lock
    # and neither reads what the other is about to change.
    connect: dict[str, Any] = {"timeout": BUSY_SECONDS, "isolation_level": "IMMEDIATE"}
    try:
        storage = RDBStorage(url.reveal(), engine_kwargs={"connect_args": connect})
    except DatabaseError as error:
        if "file is not a database" in str(error):
            raise StorageError(f"{url.file} is not a SQLite database") from error
        raise
    engine = storage.engine
    sqlalchemy.event.listen(engine, "connect", _configure)
    engine.dispose()  # the connection that made the tables was not configured
    create_slot_table(engine)
    return Database(url=url, optuna=storage, engine=engine)


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # safe against a killed process under WAL
    cursor.close()


def quiet_optuna() -> None:
    """Keep Optuna's own log lines out of the terminal; warnings stay."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
