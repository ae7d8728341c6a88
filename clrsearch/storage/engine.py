"""Opening the database: one engine for Optuna's tables and ours, one place to map errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import NOT_FOUND_MSG, BaseModel
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from clrsearch import proposals
from clrsearch.errors import StorageError
from clrsearch.storage.outage import (
    DATABASE_ERRORS,
    Patience,
    is_read_only,
    is_unknown_host,
    root,
)
from clrsearch.storage.place import READ_ONLY, require_place
from clrsearch.storage.slots import create_slot_table, has_slot_table, missing_columns
from clrsearch.storage.sqlite import SqliteFile
from clrsearch.storage.url import StorageUrl

# One connection per worker, regardless of its threads: a stock PostgreSQL serves 97. No ping before
# each use, which would cost a tenth of every call: a broken connection is an outage, and those are
# waited out.
_SERVER = {"pool_size": 1, "max_overflow": 0}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "postgresql": {
        **_SERVER,
        "pool_recycle": 1800,
        "connect_args": {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            # No longer than a worker may write after a renewal: data in flight when the network
            # goes silent must not arrive after another worker has taken the slot over.
            "tcp_user_timeout": 7_500,
        },
    },
    "mysql": {
        **_SERVER,
        "pool_recycle": 30,  # half of the server's idle timeout
        "connect_args": {"connect_timeout": 10, "read_timeout": 30, "write_timeout": 30},
    },
}
# A host that vanishes within a transaction leaves a session with locks, one of them Optuna's on the
# whole study: the server must end sessions that have gone silent.
_SESSION: dict[str, tuple[str, ...]] = {
    "postgresql": (
        "SET idle_in_transaction_session_timeout = '20s'",
        "SET tcp_keepalives_idle = 10",
        "SET tcp_keepalives_interval = 5",
        "SET tcp_keepalives_count = 4",
        "SET tcp_user_timeout = '30s'",
    ),
    "mysql": ("SET SESSION wait_timeout = 60",),
}

SCHEMAS = ("v3.2.0.a",)
"""Versions of Optuna's schema supported by the SQL in :mod:`clrsearch.storage.trials`."""

# Missing privilege: PostgreSQL; MySQL for a database, a table, a column, an action.
_DENIED = {"42501", 1044, 1142, 1143, 1227}


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database: Optuna's storage, and its engine, which the slot table shares."""

    url: StorageUrl
    optuna: RDBStorage
    engine: sqlalchemy.Engine


@contextmanager
def open_database(
    url: StorageUrl, *, create: bool = False, patience: Patience | None = None
) -> Iterator[Database]:
    """Open the database at ``url`` for the duration of the context; ``create`` creates its tables.

    A SQLite file that cannot be written is opened read-only, or rejected with ``create``. With
    ``patience``, outages are waited out before the database is open, except an unknown host at the
    first connection, whose name is more likely wrong. Every database error inside the context is
    raised as a :class:`StorageError`.

    Raises:
        StorageError: it cannot be opened, read or written; one line that names the cause.
    """
    require_place(url, create=create)
    patience = patience or Patience(0.0)
    with storage_errors(url):
        with _option_errors(url):
            file = _file(url, create=create)
            writable = file is not None and not file.read_only
            there = writable or patience(partial(_has_tables, url, file))
            if not there and not create:
                begin = proposals.command("run")
                raise StorageError(f"no studies at {url}: {begin} creates the tables")
            database = patience(partial(_open, url, file, make_tables=not there))
        try:
            yield database
        finally:
            database.optuna.remove_session()
            database.engine.dispose()


def _file(url: StorageUrl, *, create: bool) -> SqliteFile | None:
    """The file of a SQLite database; ``create`` creates an empty one if it is missing.

    Raises:
        StorageError: with ``create``, it cannot be written to.
    """
    if create and url.file is not None and not url.file.exists():
        url.file.touch()
    file = SqliteFile.of(url)
    if create and file is not None and file.read_only:
        raise StorageError(f"{url}: {READ_ONLY}")
    return file


@contextmanager
def storage_errors(url: StorageUrl) -> Iterator[None]:
    """Convert database errors raised inside the context to :class:`StorageError`."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise explained(url, error) from error
    except KeyError as error:
        if error.args != (NOT_FOUND_MSG,):
            raise
        raise StorageError(f"{url}: the study has been deleted in the meantime") from error


@contextmanager
def _option_errors(url: StorageUrl) -> Iterator[None]:
    """Convert driver errors about a URL's options, whose messages may contain their values."""
    try:
        yield
    except (AttributeError, TypeError, ValueError):
        if not url.has_options:
            raise
        raise StorageError(f"{url}: the driver does not accept the options after the ?") from None


def explained(url: StorageUrl, error: BaseException) -> StorageError:
    """Convert a database error to one line that says what to do."""
    return StorageError(f"{url}: {cause(error)}{_remedy(url, error)}")


def cause(error: BaseException) -> str:
    """The driver's own message in one line; Optuna's and SQLAlchemy's wrappers say less."""
    error = root(error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
        if type(error).__module__.startswith("pymysql") and len(error.args) > 1:
            error = Exception(error.args[1])
    return " ".join(str(error).split()) or type(error).__name__


def _remedy(url: StorageUrl, error: BaseException) -> str:
    """Advice if the server lets nobody write, or not this role; empty otherwise."""
    if is_read_only(error):
        return "; the URL must name a writable server and a role with write access"
    refused = getattr(root(error), "orig", None)
    if url.file is not None:
        return f"; {READ_ONLY}" if "readonly database" in str(refused) else ""
    code = getattr(refused, "sqlstate", None) or next(iter(getattr(refused, "args", ())), None)
    if code in _DENIED:
        return f"; the role {url.user} is not allowed to do that: use the URL of one that is"
    return ""


def _made_by_another(error: BaseException) -> bool:
    """Whether another process created a table or its first row at the same time."""
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
def _open(url: StorageUrl, file: SqliteFile | None, *, make_tables: bool) -> Database:
    if make_tables:
        _make_tables(url)
    try:
        storage = optuna_storage(url, file)
    except DatabaseError as error:
        if "file is not a database" in str(error):
            raise StorageError(f"{url.file} is not a SQLite database") from error
        raise
    engine = storage.engine
    try:
        require_version(url, storage)
        begin = partial(_begin_session, url.dialect) if file is None else file.begin_session
        sqlalchemy.event.listen(engine, "connect", begin)
        sqlalchemy.event.listen(engine, "handle_error", _leave_if_read_only)
        engine.dispose()  # the connection that read the version was not set up
        create_slot_table(engine)
        if missing_columns(engine):
            raise StorageError(
                f"{url} was created by an earlier clrsearch: back it up, then run "
                f"{proposals.command('db upgrade')}"
            )
    except BaseException:
        engine.dispose()
        raise
    return Database(url=url, optuna=storage, engine=engine)


def optuna_storage(url: StorageUrl, file: SqliteFile | None = None, **options: Any) -> RDBStorage:
    """Create Optuna's storage at ``url``, without checking the version of its schema.

    ``file`` is the file of a SQLite database. ``options`` override those of the engine.

    Raises:
        SQLAlchemyError, StorageInternalError: a database error.
    """
    template = url.reveal().replace("{", "{{").replace("}", "}}")  # Optuna calls str.format on it
    storage = RDBStorage(
        template,
        engine_kwargs=_options(url, file) | options,
        skip_compatibility_check=True,
    )
    storage.url = str(url)  # no password when it is pickled or shown
    if file is not None:
        sqlalchemy.event.listen(storage.engine, "checkout", file.check)
    return storage


def _options(url: StorageUrl, file: SqliteFile | None) -> dict[str, Any]:
    return {"creator": file.connect} if file is not None else _OPTIONS[url.dialect]


def _make_tables(url: StorageUrl) -> None:
    """Create Optuna's tables and then ours, which needs a second connection.

    A role without the privilege fails before Optuna opens an engine that nobody could close.
    """
    BaseModel.metadata.create_all(plain_engine(url))
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
    with storage_errors(url), _option_errors(url):
        return _has_tables(url)


def _has_tables(url: StorageUrl, file: SqliteFile | None = None) -> bool:
    """Whether our tables exist; this is a command's first connection."""
    try:
        return has_slot_table(plain_engine(url, file))
    except DATABASE_ERRORS as error:
        if is_unknown_host(error):  # a typo, not an outage
            raise explained(url, error) from error
        raise


def plain_engine(url: StorageUrl, file: SqliteFile | None = None) -> sqlalchemy.Engine:
    """Create an engine for a few statements: no connection pool, and no tables made by Optuna."""
    options = _options(url, file)
    kept = {key: options[key] for key in ("connect_args", "creator") if key in options}
    return sqlalchemy.create_engine(url.reveal(), poolclass=sqlalchemy.NullPool, **kept)


def require_version(url: StorageUrl, storage: RDBStorage, *, or_older: bool = False) -> None:
    """Reject a schema that our SQL does not support; ``or_older`` accepts one that can be upgraded.

    Raises:
        StorageError: naming the supported schemas and what to install.
    """
    there, here = storage.get_current_version(), storage.get_head_version()
    known = " and ".join(SCHEMAS)
    if here not in SCHEMAS:
        raise StorageError(
            f"Optuna {optuna.__version__} uses database schema {here}, but this version of "
            f"clrsearch supports only {known}: run pip install 'optuna>=5,<6', or update clrsearch"
        )
    if there == here or (or_older and there in storage.get_all_versions()):
        return
    both = f"the tables at {url} have Optuna's schema {there}, but Optuna {optuna.__version__}"
    if there in storage.get_all_versions():
        upgrade = proposals.command("db upgrade")
        raise StorageError(f"{both} needs {here}: back them up, then run {upgrade}")
    raise StorageError(
        f"the tables at {url} have Optuna's schema {there}, but this version of clrsearch supports "
        f"only {known}: update clrsearch"
    )


def _begin_session(dialect: str, connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for statement in _SESSION[dialect]:
        cursor.execute(statement)
    cursor.close()
    connection.commit()


def _leave_if_read_only(context: sqlalchemy.engine.ExceptionContext) -> None:
    """Drop connections to a read-only server: another one may be the primary by now."""
    error = context.sqlalchemy_exception
    if error is not None and is_read_only(error):
        context.is_disconnect = True


def quiet_optuna() -> None:
    """Hide Optuna's info log lines; warnings stay."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
