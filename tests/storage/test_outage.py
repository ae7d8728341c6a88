"""What is waited out, for how long, and what is told at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from private_mariadb import ask, private_mariadb
from resolver import FAILING, FAR_HOST, UNKNOWN
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, PendingRollbackError

from clrsearch.errors import StorageError
from clrsearch.storage import (
    Patience,
    Slots,
    StorageUrl,
    Tolerance,
    cause,
    is_outage,
    open_database,
    require_writable,
)
from clrsearch.storage.engine import optuna_storage
from clrsearch.storage.outage import is_unknown_host


@contextmanager
def engine_of(url: StorageUrl, **options):
    engine = sa.create_engine(url.reveal(), connect_args=options)
    yield engine
    engine.dispose()


def error_of(url: str, statement: str = "SELECT 1") -> BaseException:
    with (
        engine_of(StorageUrl(url)) as engine,
        pytest.raises(DatabaseError) as caught,
        engine.begin() as connection,
    ):
        connection.exec_driver_sql(statement)
    return caught.value


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_down_is_an_outage(scheme) -> None:
    assert is_outage(error_of(f"{scheme}://me@127.0.0.1:{closed_port()}/db"))


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("fault", [UNKNOWN, FAILING])
def test_a_host_that_does_not_resolve_is_an_outage(scheme, fault, resolver) -> None:
    resolver.fault = fault
    error = error_of(f"{scheme}://me@{FAR_HOST}/db")
    assert is_outage(error)
    assert is_unknown_host(error) == (fault is UNKNOWN)
    assert not is_unknown_host(error_of(f"{scheme}://me@127.0.0.1:{closed_port()}/db"))


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_host_that_is_unknown_at_the_first_connection_is_told_at_once(scheme, resolver) -> None:
    resolver.fault = UNKNOWN
    patience = Patience(60.0, sleep=pytest.fail)
    with (
        pytest.raises(StorageError, match="Name or service not known"),
        open_database(StorageUrl(f"{scheme}://me@{FAR_HOST}/db"), patience=patience),
    ):
        pass


def test_a_resolver_that_fails_for_a_while_is_waited_out_at_the_first_connection(
    resolver, named_url
) -> None:
    resolver.fault = FAILING

    def mend(seconds) -> None:
        resolver.fault = None

    with open_database(named_url, create=True, patience=Patience(60.0, sleep=mend)) as database:
        assert database.optuna.get_all_studies() == []


def test_a_database_or_role_that_is_unknown_is_none(postgresql) -> None:
    url = sa.make_url(postgresql.reveal())
    for changed in (url.set(database="no_such"), url.set(username="no_such")):
        assert not is_outage(error_of(changed.render_as_string(False)))


def test_a_wrong_statement_is_none(any_url) -> None:
    with open_database(any_url, create=True):
        pass
    assert not is_outage(error_of(any_url.reveal(), "SELECT * FROM no_such_table"))
    assert not is_outage(error_of(any_url.reveal(), "INSERT INTO version_info VALUES (1, 1, 'x')"))


def test_a_connection_that_the_server_ends_is_an_outage(postgresql) -> None:
    with (
        engine_of(postgresql) as engine,
        engine.connect() as connection,
        engine.connect() as killer,
    ):
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        killer.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(OperationalError) as caught:
            connection.exec_driver_sql("SELECT 1")
    assert is_outage(caught.value)


def test_a_temporary_file_that_the_server_loses_is_an_outage(mysql) -> None:
    error = error_of(mysql.reveal(), "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 6")  # EE_DELETE
    assert is_outage(error)


def test_a_lock_that_is_held_is_an_outage(url) -> None:
    with (
        engine_of(url, timeout=0.1) as engine,
        engine.connect() as holder,
        engine.connect() as waiter,
    ):
        holder.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(OperationalError) as caught:
            waiter.exec_driver_sql("CREATE TABLE a (b INTEGER)")
    assert is_outage(caught.value)


def test_a_server_that_takes_no_writes_is_an_outage_and_a_file_that_takes_none_is_none(
    any_url,
) -> None:
    with open_database(any_url, create=True):
        pass
    read_only = {
        "sqlite": "PRAGMA query_only = 1",
        "postgresql": "SET TRANSACTION READ ONLY",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
    }
    with engine_of(any_url) as engine, engine.connect() as connection:
        connection.exec_driver_sql(read_only[any_url.dialect])
        if any_url.dialect == "mysql":
            connection.commit()  # it holds from the next transaction on
        with pytest.raises(DatabaseError, match=r"(?i)read.?only") as caught:
            connection.exec_driver_sql("DELETE FROM clrsearch_slots")
    assert is_outage(caught.value) == (any_url.dialect != "sqlite")


@pytest.fixture(params=["postgresql", "mysql"])
def switched(request) -> Iterator[tuple[StorageUrl, Callable[[bool], None]]]:
    """A database on a server, and what makes it read-only or not."""
    if request.param == "mysql":
        with private_mariadb() as port:
            yield (
                StorageUrl(f"mysql://worker@127.0.0.1:{port}/db"),
                lambda on: ask(port, f"SET GLOBAL read_only = {on:d}"),
            )
        return
    url = request.getfixturevalue("postgresql")
    name = sa.make_url(url.reveal()).database
    with engine_of(url) as engine:

        def switch(on) -> None:
            with engine.begin() as connection:
                connection.exec_driver_sql("SET TRANSACTION READ WRITE")
                connection.exec_driver_sql(
                    f"ALTER DATABASE {name} SET default_transaction_read_only = {on}"
                )

        yield url, switch


def test_connections_to_a_server_that_takes_no_writes_are_not_kept(switched) -> None:
    url, switch = switched
    with open_database(url, create=True):
        pass
    switch(True)
    with open_database(url) as database:
        slots = Slots(database.engine, "study")
        with pytest.raises(DBAPIError, match="read-only") as caught:
            slots.grow(["cyclic"])
        assert is_outage(caught.value)
        switch(False)  # a session of PostgreSQL stays as it began
        slots.grow(["cyclic"])
        require_writable(database)


def test_a_server_that_takes_no_writes_from_the_start_is_refused(switched) -> None:
    url, switch = switched
    with open_database(url, create=True):
        pass
    switch(True)
    with (
        open_database(url) as database,
        pytest.raises(StorageError, match=r"read-only .*; the URL must name a writable server"),
    ):
        require_writable(database)


def test_under_optunas_wrapper_the_cause_decides(far_url, cable) -> None:
    with open_database(far_url, create=True):
        storage = optuna_storage(far_url)
        cable.cut()
        with pytest.raises(StorageInternalError) as caught:
            storage.get_all_studies()
        assert is_outage(caught.value)
        cable.join()
        assert storage.get_all_studies() == []
        storage.remove_session()
        storage.engine.dispose()


def test_an_error_inside_optunas_second_try_is_the_first_one(far_url, cable) -> None:
    with open_database(far_url, create=True) as database:
        study_id = database.optuna.create_new_study([StudyDirection.MINIMIZE], "mine")

        def cut(connection, cursor, statement, *_) -> None:
            if "FROM trials" in statement:
                cable.cut()

        sa.event.listen(database.engine, "before_cursor_execute", cut)
        with pytest.raises(StorageInternalError) as caught:
            database.optuna.get_all_trials(study_id)
        assert isinstance(caught.value.__cause__, PendingRollbackError)
        assert is_outage(caught.value)
        assert "Can't reconnect" not in cause(caught.value)
        sa.event.remove(database.engine, "before_cursor_execute", cut)
        cable.join()
        assert database.optuna.get_all_trials(study_id) == []


class Down(Exception):
    """What a driver would raise."""


Down.__module__ = "psycopg.errors"
Down.__name__ = "OperationalError"


def down(*, times: int):
    """A call that meets an outage so many times."""
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise OperationalError("SELECT 1", {}, Down("connection refused"))
        return "answer"

    return call


def test_patience_calls_again_until_the_answer_comes() -> None:
    naps, waited = [], []
    patience = Patience(60.0, sleep=naps.append, on_wait=waited.append)
    assert patience(down(times=5)) == "answer"
    assert len(naps) == 5
    assert all(0 <= nap <= 0.1 * 2**index for index, nap in enumerate(naps))
    assert len(waited) == 1


def test_patience_runs_out_with_the_last_error() -> None:
    began = time.monotonic()
    with pytest.raises(OperationalError, match="connection refused"):
        Patience(0.5)(down(times=10**9))
    assert 0.5 <= time.monotonic() - began < 20


def test_what_is_no_outage_is_not_waited_out() -> None:
    def call() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Patience(60.0, sleep=pytest.fail)(call)


def test_tolerance_lets_an_outage_pass_for_a_while() -> None:
    tolerance = Tolerance(0.3)
    broken = down(times=10**9)
    for _ in range(2):
        began = time.monotonic()
        while time.monotonic() - began < 0.25:
            with tolerance():
                broken()
        with tolerance():  # over: the next one is counted anew
            pass
    with pytest.raises(OperationalError):
        while True:
            with tolerance():
                broken()
