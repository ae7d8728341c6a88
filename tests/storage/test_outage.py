"""What is waited out, for how long, and what is told at once."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy.exc import DatabaseError, OperationalError, PendingRollbackError

from clrsearch.storage import Patience, StorageUrl, Tolerance, cause, is_outage, open_database
from clrsearch.storage.engine import optuna_storage


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
def test_a_host_that_is_unknown_is_none(scheme) -> None:
    assert not is_outage(error_of(f"{scheme}://me@no-such-host.invalid/db"))


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


def test_a_database_that_may_only_be_read_is_none(any_url) -> None:
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
    assert not is_outage(caught.value)


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
