"""Telling temporary outages from permanent errors, and waiting outages out."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

T = TypeVar("T")

PATIENCE_SECONDS = 600.0
LONGEST_WAIT = 10.0  # seconds between retries

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

# SQLSTATE: connection lost, read-only (what was the primary no longer is), timed out within a
# transaction, rolled back (deadlock), out of connections, memory or disk, lock not available,
# cancelled or shutting down, I/O error. https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = re.compile("08|25006|25P0[34]|40|53|55P03|57|58000|58030")
# A failed connection attempt has no SQLSTATE; these words say that retrying will not help.
_REFUSED_FOR_GOOD = re.compile(
    "authentication failed|does not exist|no such (database|user)|no pg_hba.conf entry"
    "|no password supplied|permission denied|certificate"
)
# https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference
_MYSQL_READ_ONLY = {1290, 1792, 1836}
_MYSQL = {
    *_MYSQL_READ_ONLY,
    *(0, 1043, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927),  # connection lost, shutting down
    *(2002, 2003, 2006, 2013, 2055, 4031),  # the same, seen by the client
    *(1040, 1129, 1135, 1203, 1226),  # too many connections, queries or broken connections
    *(1021, 1037, 1038, 1041, 1114, 1637),  # out of disk, memory or transactions
    *range(1, 31),  # the server's temporary files: lost, unreadable, no space for them
    *(1020, 1180, 1205, 1206, 1213, 3101, 3572),  # locks, deadlocks, conflicts between nodes
    *(1317, 1969, 3024),  # a statement that was cancelled or took too long
    *(1047, 3032, 3100, 3168),  # a node that is joining or offline
}
_SQLITE = re.compile("database (table )?is locked")


def is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed later: the database is unreachable, overloaded or locked.

    Meant for a database that has been reached before: a host name that no longer resolves, or a
    server that no longer takes writes, then indicates a failover.
    """
    cause = root(error)
    if isinstance(cause, PoolTimeout):
        return True
    if not isinstance(cause, DBAPIError) or cause.orig is None:
        return False
    driver, code, text = _driver(cause.orig), _code(cause.orig), str(cause.orig)
    if driver == "psycopg" and code is not None:
        return _POSTGRESQL.match(str(code)) is not None
    if _REFUSED_FOR_GOOD.search(text):
        return False
    if driver == "psycopg":
        return _server_was_silent(cause.orig)
    if driver == "pymysql":
        return code in _MYSQL
    return _SQLITE.search(text) is not None


def is_unknown_host(error: BaseException) -> bool:
    """Whether the host name does not resolve, without the resolver suggesting a retry."""
    refused = getattr(root(error), "orig", None)
    if refused is None:
        return False
    unresolved = str(refused).startswith("failed to resolve host") or isinstance(
        getattr(refused, "original_exception", None), socket.gaierror
    )
    return unresolved and f"[Errno {socket.EAI_AGAIN}]" not in str(refused)


def is_read_only(error: BaseException) -> bool:
    """Whether a server takes no writes, from this role or from any."""
    refused = getattr(root(error), "orig", None)
    if refused is None:
        return False
    code = _code(refused)
    return code == "25006" or (_driver(refused) == "pymysql" and code in _MYSQL_READ_ONLY)


def root(error: BaseException) -> BaseException:
    """SQLAlchemy's error wrapped by Optuna's, which is the same for every failure.

    If Optuna queries again in a transaction broken by an error, the first error is only the context
    of the second.
    """
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, PendingRollbackError) and error.__context__ is not None:
        return error.__context__
    return error


def _driver(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _code(error: BaseException) -> object:
    """PostgreSQL's SQLSTATE or MySQL's error number, if the server sent one."""
    if _driver(error) == "pymysql":
        return next(iter(error.args), None)
    return getattr(error, "sqlstate", None)


def _server_was_silent(error: BaseException) -> bool:
    """Whether an error without SQLSTATE means a connection that failed or broke."""
    silent = ("OperationalError", "InterfaceError", "ConnectionTimeout", "DatabaseError")
    return type(error).__name__ in silent


class Patience:
    """Retries a call until an outage is over, for a limited time in seconds."""

    def __init__(
        self,
        seconds: float = PATIENCE_SECONDS,
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_wait: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """``on_wait`` is called with the error that starts a wait."""
        self.seconds = seconds
        self._sleep = sleep
        self._on_wait = on_wait

    def __call__(self, call: Callable[[], T]) -> T:
        """Return the result of ``call``, retrying it during outages.

        Raises:
            SQLAlchemyError, StorageInternalError: the last error, if the time is up or it is not an
                outage.
        """
        return Retrying(
            retry=retry_if_exception(is_outage),
            stop=stop_after_delay(self.seconds),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_WAIT),
            sleep=self._sleep,
            before_sleep=self._begin_to_wait,
            reraise=True,
        )(call)

    def _begin_to_wait(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            assert error is not None
            self._on_wait(error)


class Tolerance:
    """Suppresses outages in work that is repeated soon anyway, for a limited time in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Context that an outage ends early.

        Raises:
            SQLAlchemyError, StorageInternalError: the error is not an outage, or the outage lasts
                too long.
        """
        try:
            yield
        except DATABASE_ERRORS as error:
            now = time.monotonic()
            self._since = self._since or now
            if not is_outage(error) or now - self._since > self._seconds:
                raise
        else:
            self._since = None
