"""Opening a database: how it is set up, and one line for whatever is wrong with it."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection

from clrsearch.errors import StorageError
from clrsearch.storage import StorageUrl, engine, is_outage, open_database, require_place


def test_sqlite_is_opened_for_many_writers(url) -> None:
    with open_database(url, create=True) as database, database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def test_a_write_begins_with_the_write_lock(url) -> None:
    with open_database(url, create=True) as database:
        said: list[str] = []
        with database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            driver.set_trace_callback(said.append)
            connection.execute(sa.text("CREATE TABLE mine (a INTEGER)"))
            connection.execute(sa.text("INSERT INTO mine VALUES (1)"))
            connection.commit()
        assert "BEGIN IMMEDIATE" in [statement.strip() for statement in said]


def test_nothing_is_made_unless_asked(url) -> None:
    with pytest.raises(StorageError, match="no studies at"), open_database(url):
        pass
    assert not url.file.exists()


def test_a_missing_folder_is_named(tmp_path) -> None:
    url = StorageUrl(f"sqlite:///{tmp_path}/nowhere/studies.db")
    with pytest.raises(StorageError, match=r"the database folder .*nowhere does not exist"):
        open_database(url, create=True).__enter__()


def test_a_folder_is_no_database(tmp_path) -> None:
    with pytest.raises(StorageError, match="is a folder, not a database file"):
        open_database(StorageUrl(f"sqlite:///{tmp_path}"), create=True).__enter__()


def test_another_file_is_no_database(url) -> None:
    url.file.write_text("These are notes, and no database at all.\n" * 100)
    with pytest.raises(StorageError, match=r"studies.db is not a SQLite database"):
        open_database(url, create=True).__enter__()
    assert url.file.read_text().startswith("These are notes")


def test_an_error_inside_tells_the_drivers_own_words(url) -> None:
    with (
        pytest.raises(StorageError, match="no such table: absent"),
        open_database(url, create=True) as database,
        database.engine.connect() as connection,
    ):
        connection.execute(sa.text("SELECT * FROM absent"))


def test_a_database_that_may_only_be_read_is_told_at_the_first_write(url) -> None:
    with open_database(url, create=True):
        pass
    with (
        pytest.raises(StorageError, match="readonly database"),
        open_database(url) as database,
        database.engine.connect() as connection,
    ):
        connection.exec_driver_sql("PRAGMA query_only = 1")
        connection.execute(sa.text("DELETE FROM clrsearch_slots"))


def test_a_folder_that_may_only_be_read_is_named() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o555)
    url = StorageUrl(f"sqlite:///{folder}/studies.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside pytest's threads
        child = os.fork()
    if child == 0:  # as somebody to whom the mode of a folder matters
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            require_place(url, create=True)
        except StorageError as error:
            os._exit(7 if f"the folder {folder} is read-only" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    folder.rmdir()


@pytest.mark.parametrize(
    ("server", "impatient"),
    [
        ("postgresql", "SET idle_in_transaction_session_timeout = '1s'"),
        ("mysql", "SET SESSION wait_timeout = 1"),
    ],
)
def test_a_session_that_falls_silent_within_a_transaction_lets_go_of_its_locks(
    server, impatient, request, monkeypatch
) -> None:
    url = request.getfixturevalue(server)
    locks = "SELECT study_id FROM studies FOR UPDATE"
    monkeypatch.setitem(engine._SESSION, server, (impatient,))
    with open_database(url, create=True) as silent, open_database(url) as other:
        silent.optuna.create_new_study([StudyDirection.MINIMIZE], "mine")
        with silent.engine.connect() as holds:
            holds.exec_driver_sql(locks)
            time.sleep(2.5)
            with other.engine.begin() as connection:
                assert len(connection.exec_driver_sql(locks).all()) == 1
            with pytest.raises(sa.exc.DBAPIError) as caught:
                holds.exec_driver_sql(locks)
        assert is_outage(caught.value)


def test_sessions_are_set_up(any_url) -> None:
    with open_database(any_url, create=True) as database, database.engine.connect() as connection:
        show = {
            "sqlite": "PRAGMA journal_mode",
            "postgresql": "SHOW idle_in_transaction_session_timeout",
            "mysql": "SELECT @@SESSION.wait_timeout",
        }[any_url.dialect]
        expected = {"sqlite": "wal", "postgresql": "20s", "mysql": 60}[any_url.dialect]
        assert connection.exec_driver_sql(show).scalar() == expected
