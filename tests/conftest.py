"""What the tests share: a database of their own, and a task that trains in milliseconds."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from cable import Cable
from resolver import FAR_HOST, Resolver

from clrsearch import cli
from clrsearch.search import StudyPlan
from clrsearch.storage import StorageUrl
from clrsearch.tasks import LoadedTask, load_task

TASKS = Path(__file__).parent / "tasks_for_tests"
LONG = {
    *("test_compose", "test_secrets", "test_service", "test_survival", "test_slurm", "test_ray"),
    *("test_proposals", "test_sqlite", "test_supervise", "test_budgets", "test_failures"),
    "test_pages",
}
"""The modules with the longest tests."""


def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores: many tests wait for leases, outages and processes."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no core waits for it in the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageUrl:
    """A database file that does not exist yet, and that every command uses."""
    text = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("CLRSEARCH_STORAGE", text)
    return StorageUrl(text)


SERVERS = {
    "postgresql": ("CLRSEARCH_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/test"),
    "mysql": ("CLRSEARCH_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/test"),
}
"""The variable that names a database server for the tests, and where one is looked for without."""


def make_database(dialect: str) -> Iterator[StorageUrl]:
    """A new database on a server, dropped afterwards.

    A server that is not there is a reason to skip, unless its variable says that it must be.
    """
    variable, usual = SERVERS[dialect]
    demanded = os.environ.get(variable)
    server = sa.make_url(StorageUrl(demanded or usual).reveal())
    name = f"clrsearch_test_{uuid.uuid4().hex[:12]}"
    options = {"connect_timeout": 5}
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", connect_args=options)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except sa.exc.OperationalError as error:
        if demanded:
            raise
        pytest.skip(f"no {dialect} at {server.host}:{server.port} ({variable} names another)")
        raise AssertionError from error
    try:
        yield StorageUrl(server.set(database=name).render_as_string(hide_password=False))
    finally:
        force = " WITH (FORCE)" if dialect == "postgresql" else ""
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        engine.dispose()


@pytest.fixture
def postgresql() -> Iterator[StorageUrl]:
    """A new PostgreSQL database."""
    yield from make_database("postgresql")


@pytest.fixture
def mysql() -> Iterator[StorageUrl]:
    """A new MySQL or MariaDB database."""
    yield from make_database("mysql")


@pytest.fixture
def cable(postgresql: StorageUrl) -> Iterator[Cable]:
    """A cable to the server of :func:`postgresql`."""
    server = sa.make_url(postgresql.reveal())
    laid = Cable(server.host or "127.0.0.1", server.port or 5432)
    yield laid
    laid.close()


@pytest.fixture
def far_url(cable: Cable, postgresql: StorageUrl) -> StorageUrl:
    """The database of :func:`postgresql`, through the cable."""
    server = sa.make_url(postgresql.reveal()).set(host="127.0.0.1", port=cable.port)
    return StorageUrl(server.render_as_string(hide_password=False))


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """What answers for :data:`resolver.FAR_HOST`."""
    return Resolver(monkeypatch)


@pytest.fixture
def named_url(resolver: Resolver, far_url: StorageUrl) -> StorageUrl:
    """The database of :func:`far_url`, by a name that ``resolver`` answers for."""
    server = sa.make_url(far_url.reveal()).set(host=FAR_HOST)
    return StorageUrl(server.render_as_string(hide_password=False))


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def any_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StorageUrl]:
    """A new database of each kind, which every command uses."""
    if request.param == "sqlite":
        url = StorageUrl(f"sqlite:///{tmp_path / 'studies.db'}")
        monkeypatch.setenv("CLRSEARCH_STORAGE", url.reveal())
        yield url
        return
    for url in make_database(request.param):
        monkeypatch.setenv("CLRSEARCH_STORAGE", url.reveal())
        yield url


@pytest.fixture
def task_dir() -> Path:
    """The folder of the tests' own tasks."""
    return TASKS


@pytest.fixture
def tiny() -> LoadedTask:
    """A linear model on 64 points."""
    return load_task("tiny.py:Tiny", folder=TASKS)


@pytest.fixture
def plan() -> StudyPlan:
    """A study of the tiny task: 6 slots of 4 epochs."""
    return StudyPlan(task="tiny.py:Tiny", families=("cyclic",), trials=6)


@pytest.fixture
def clrsearch(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clrsearch", *arguments])
        code: object = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code
        printed = capfd.readouterr()
        return code if isinstance(code, int) else 0, printed.out, printed.err

    return run
