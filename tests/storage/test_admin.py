"""Databases of other versions: told with both, and upgraded."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage

from clrsearch.errors import StorageError
from clrsearch.storage import Slots, open_database, upgrade

HEAD = "v3.2.0.a"


@pytest.fixture
def older(url):
    """A database as Optuna 3.0 made it."""
    with open_database(url, create=True) as database:
        Slots(database.engine, "study").grow(["cyclic"])
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX ix_trials_study_id")  # of Optuna 3.2
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    return url


def test_an_older_schema_is_told_and_upgraded(older) -> None:
    with (
        pytest.raises(StorageError, match=rf"v3.0.0.d.*needs {HEAD}.*clrsearch db upgrade"),
        open_database(older),
    ):
        pass
    done = upgrade(older)
    assert (done.before, done.after, done.columns, done.changed) == ("v3.0.0.d", HEAD, (), True)
    with open_database(older) as database:
        assert Slots(database.engine, "study").claim("w").number == 0
    assert not upgrade(older).changed


def test_a_newer_schema_is_told(any_url) -> None:
    with open_database(any_url, create=True) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    for use in (lambda: open_database(any_url).__enter__(), lambda: upgrade(any_url)):
        with pytest.raises(StorageError, match=rf"v9.0.0.a.*supports only {HEAD}: update"):
            use()


def test_a_schema_that_only_a_later_optuna_knows_is_refused(url, monkeypatch) -> None:
    with open_database(url, create=True) as database, database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v6.0.0.a'")
    monkeypatch.setattr(RDBStorage, "get_head_version", lambda self: "v6.0.0.a")
    wanted = (
        rf"uses database schema v6.0.0.a, .* supports only {HEAD}: run pip install 'optuna>=5,<6'"
    )
    for use in (lambda: open_database(url).__enter__(), lambda: upgrade(url)):
        with pytest.raises(StorageError, match=wanted):
            use()


def test_a_column_of_a_later_version_is_added(any_url) -> None:
    with open_database(any_url, create=True) as database:
        slots = Slots(database.engine, "study")
        slots.grow(["cyclic"])
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE clrsearch_slots DROP COLUMN losses")
    with pytest.raises(StorageError, match="earlier clrsearch"), open_database(any_url):
        pass
    assert upgrade(any_url).columns == ("losses",)
    with open_database(any_url) as database:
        assert Slots(database.engine, "study").claim("w").losses == 0


def test_where_there_is_no_database_none_is_made(url) -> None:
    with pytest.raises(StorageError, match="no studies at"):
        upgrade(url)
    assert not url.file.exists()


def test_an_upgrade_that_fails_is_told(older) -> None:
    engine = sa.create_engine(older.reveal())
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX trials_study_id_key ON trials (study_id)")
    engine.dispose()
    with pytest.raises(StorageError, match=r"the upgrade failed: index .* already exists"):
        upgrade(older)
