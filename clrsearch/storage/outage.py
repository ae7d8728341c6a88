"""Telling an outage, which passes, from an error that stays; and waiting outages out."""

from __future__ import annotations

import re
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
LONGEST_WAIT = 10.0  # seconds between two tries

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

# SQLSTATE: connection lost, rolled back (deadlock), cancelled or shutting down, too many
# connections, lock not available. https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = re.compile("08|40|57|25P03|53300|55P03")
# A connection that was never made has no SQLSTATE; these words say that another try will not help.
_REFUSED_FOR_GOOD = re.compile(
    "authentication failed|does not exist|no pg_hba.conf entry|failed to resolve"
    "|no password supplied|permission denied|certificate|Name or service not known"
)
# Lock wait, deadlock, too many connections, shutdown, network and lost-connection errors.
_MYSQL = {0, 1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1927, 2002, 2003, 2006, 2013}
_SQLITE = re.compile("database (table )?is locked")


def is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed later: the database is away, overrun or locked."""
    cause = root(error)
    if isinstance(cause, PoolTimeout):
        return True
    if not isinstance(cause, DBAPIError) or cause.orig is None:
        return False
    driver, text = type(cause.orig).__module__.partition(".")[0], str(cause.orig)
    if _REFUSED_FOR_GOOD.search(text):
        return False
    if driver == "psycopg":
        state = getattr(cause.orig, "sqlstate", None)
        return _POSTGRESQL.match(state) is not None if state else _never_connected(cause)
    if driver == "pymysql":
        return bool(cause.orig.args) and cause.orig.args[0] in _MYSQL
    return _SQLITE.search(text) is not None


def root(error: BaseException) -> BaseException:
    """SQLAlchemy's error under Optuna's: that one says the same of every failure.

    Where Optuna queries again after an error, in a transaction that the error has broken, the first
    error is only the context of the second.
    """
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, PendingRollbackError) and error.__context__ is not None:
        return error.__context__
    return error


def _never_connected(error: DBAPIError) -> bool:
    """Without a SQLSTATE the server did not speak: the connection was not made or is broken."""
    return type(error.orig).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")


class Patience:
    """Calls until an outage is over, for at most so many seconds."""

    def __init__(
        self,
        seconds: float = PATIENCE_SECONDS,
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_wait: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """``on_wait`` is called with the error at which a wait begins."""
        self.seconds = seconds
        self._sleep = sleep
        self._on_wait = on_wait

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of ``call``, which is called again after every outage.

        Raises:
            SQLAlchemyError, StorageInternalError: the last error, where patience has run out or
                the error is no outage.
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
    """Lets an outage pass where the same is done again soon, for at most so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """A block that an outage ends early.

        Raises:
            SQLAlchemyError, StorageInternalError: the error is no outage, or it has lasted longer.
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
