"""Database diagnostics: latency, server version, clock offset, and whether it is writable."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.storages._rdb.models import StudyModel

from clrsearch.storage.engine import Database, cause, explained
from clrsearch.storage.outage import DATABASE_ERRORS, is_read_only
from clrsearch.storage.slots import SLOT_TABLE, database_clock

ROUND_TRIPS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition of a database.

    Attributes:
        server: the server's name and version.
        schema: version of Optuna's schema.
        studies: number of studies.
        milliseconds: median round-trip time.
        refused: why this role may not write; empty if it may.
        clock: seconds by which the database's clock is ahead of this machine's.
    """

    server: str
    schema: str
    studies: int
    milliseconds: float
    refused: str
    clock: float


def condition(database: Database) -> Condition:
    """Diagnose an open database; the test write is rolled back."""
    engine = database.engine
    with engine.connect() as connection:
        trips = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            trips.append(time.perf_counter() - began)
        studies = connection.scalar(sa.select(sa.func.count()).select_from(StudyModel))
        clock = (connection.scalar(sa.select(database_clock)) or 0.0) - time.time()
    version = ".".join(str(part) for part in engine.dialect.server_version_info or ())
    named = (
        "MariaDB" if getattr(engine.dialect, "is_mariadb", False) else _NAMES[database.url.dialect]
    )
    return Condition(
        server=f"{named} {version}",
        schema=database.optuna.get_current_version(),
        studies=studies or 0,
        milliseconds=statistics.median(trips) * 1e3,
        refused=_refused(engine),
        clock=clock,
    )


_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL"}


def require_writable(database: Database) -> None:
    """Reject a database that is read-only from the start; later, that is taken for a failover.

    Raises:
        StorageError: it is read-only, for this role or for all.
        SQLAlchemyError: any other database error.
    """
    try:
        _change_nothing(database.engine)
    except DATABASE_ERRORS as error:
        if is_read_only(error):
            raise explained(database.url, error) from error
        raise


def _refused(engine: sa.Engine) -> str:
    """Why this role may not change our rows; empty if it may."""
    try:
        _change_nothing(engine)
    except DATABASE_ERRORS as error:
        return cause(error)
    return ""


def _change_nothing(engine: sa.Engine) -> None:
    """Execute an update that changes no row, and roll it back."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"UPDATE {SLOT_TABLE} SET attempt = attempt WHERE study = ''")
        connection.rollback()
