"""Opening the database: one engine for Optuna's tables and ours, and one border for its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from clrsearch.errors import StorageError
from clrsearch.storage.outage import DATABASE_ERRORS, Patience, root
from clrsearch.storage.place import require_place
from clrsearch.storage.slots import create_slot_table, has_slot_table, missing_columns
from clrsearch.storage.url import StorageUrl

BUSY_SECONDS = 60  # how long a writer waits for SQLite's one write lock

# One connection per worker, whatever its threads do: a stock PostgreSQL serves 97. It is not tried
# before each use, which would cost a tenth of every call: a broken one is an outage, and those are
# waited out. A network that has gone silent is noticed in half a minute.
_SERVER = {"pool_size": 1, "max_overflow": 0, "pool_recycle": 1800}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    # The driver opens every write with BEGIN IMMEDIATE, so that two writers queue for the lock and
    # neither reads what the other is about to change.
    "sqlite": {"connect_args": {"timeout": BUSY_SECONDS, "isolation_level": "IMMEDIATE"}},
    "postgresql": {
        **_SERVER,
        "connect_args": {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            "tcp_user_timeout": 30_000,
        },
    },
    "mysql": {
        **_SERVER,
        "connect_args": {"connect_timeout": 10, "read_timeout": 30, "write_timeout": 30},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database: Optuna's storage, and the engine under it that the slot table shares."""

    url: StorageUrl
    optuna: RDBStorage
    engine: sqlalchemy.Engine


@contextmanager
def open_database(
    url: StorageUrl, *, create: bool = False, patience: Patience | None = None
) -> Iterator[Database]:
    """The database at ``url`` while the block lasts; its tables are made where ``create`` asks.

    With ``patience`` an outage is waited out before it is open. Every error of the database within
    the block leaves it as a :class:`StorageError`.

    Raises:
        StorageError: it cannot be opened, read or written, in one line that names the cause.
    """
    require_place(url, create=create)
    with storage_errors(url):
        database = (patience or Patience(0.0))(lambda: _open(url, create=create))
        try:
            yield database
        finally:
            database.optuna.remove_session()
            database.engine.dispose()


@contextmanager
def storage_errors(url: StorageUrl) -> Iterator[None]:
    """Around calls into the database: what it raises becomes a :class:`StorageError`."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise StorageError(f"{url}: {cause(error)}") from error
    except KeyError as error:
        if error.args != (NOT_FOUND_MSG,):
            raise
        raise StorageError(f"{url}: the study has been deleted meanwhile") from error


def cause(error: BaseException) -> str:
    """The driver's own words in one line: Optuna's and SQLAlchemy's wrappers say less."""
    error = root(error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
        if type(error).__module__.startswith("pymysql") and len(error.args) > 1:
            error = Exception(error.args[1])
    return " ".join(str(error).split()) or type(error).__name__


def _made_by_another(error: BaseException) -> bool:
    """Whether a table or its first row appeared while this process was making it too."""
    text = str(root(error))
    return isinstance(root(error), DatabaseError) and (
        "already exists" in text
        or (
            isinstance(root(error), IntegrityError)
            and any(words in text for words in ("UNIQUE constraint", "duplicate key", "Duplicate"))
        )
    )


@retry(
    retry=retry_if_exception(_made_by_another),
    stop=stop_after_attempt(5),
    wait=wait_random(0.05, 0.3),
    reraise=True,
)
def _open(url: StorageUrl, *, create: bool) -> Database:
    if url.file is None and not _has_tables(url):
        if not create:
            raise StorageError(f"no studies at {url}: clrsearch run makes the tables")
        _make_tables(url)
    try:
        storage = optuna_storage(url)
    except DatabaseError as error:
        if "file is not a database" in str(error):
            raise StorageError(f"{url.file} is not a SQLite database") from error
        raise
    engine = storage.engine
    try:
        _require_version(url, storage)
        if url.dialect == "sqlite":
            sqlalchemy.event.listen(engine, "connect", _configure_sqlite)
            engine.dispose()  # the connection that made the tables was not configured
        create_slot_table(engine)
        if missing_columns(engine):
            raise StorageError(
                f"{url} was made by an earlier clrsearch: back it up, then run clrsearch db upgrade"
            )
    except BaseException:
        engine.dispose()
        raise
    return Database(url=url, optuna=storage, engine=engine)


def optuna_storage(url: StorageUrl, **options: Any) -> RDBStorage:
    """Optuna's storage at ``url``, whatever the version of its schema.

    ``options`` are laid over those of its engine.

    Raises:
        SQLAlchemyError, StorageInternalError: the database's errors.
    """
    template = url.reveal().replace("{", "{{").replace("}", "}}")  # Optuna calls str.format on it
    storage = RDBStorage(
        template, engine_kwargs=_OPTIONS[url.dialect] | options, skip_compatibility_check=True
    )
    storage.url = str(url)  # what is pickled or shown of it has no password
    return storage


def _make_tables(url: StorageUrl) -> None:
    """Make Optuna's tables and then ours; a second connection is needed for that alone."""
    engine = optuna_storage(url, max_overflow=1).engine
    create_slot_table(engine)
    engine.dispose()


def has_studies(url: StorageUrl) -> bool:
    """Whether there is a database with our tables.

    Raises:
        StorageError: its server cannot be reached.
    """
    if url.file is not None:
        return url.file.exists()
    with storage_errors(url):
        return _has_tables(url)


def _has_tables(url: StorageUrl) -> bool:
    options = _OPTIONS[url.dialect]["connect_args"]
    return has_slot_table(
        sqlalchemy.create_engine(url.reveal(), poolclass=sqlalchemy.NullPool, connect_args=options)
    )


def _require_version(url: StorageUrl, storage: RDBStorage) -> None:
    there, here = storage.get_current_version(), storage.get_head_version()
    if there == here:
        return
    both = f"the tables at {url} have Optuna's schema {there}, Optuna {optuna.__version__} here"
    if there in storage.get_all_versions():
        raise StorageError(f"{both} needs {here}: back them up, then run clrsearch db upgrade")
    raise StorageError(f"{both} knows no more than {here}: update optuna")


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # safe against a killed process under WAL
    cursor.close()


def quiet_optuna() -> None:
    """Keep Optuna's own log lines out of the terminal; warnings stay."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
