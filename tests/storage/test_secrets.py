"""A password opens the database, and is found nowhere else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from private_postgres import PASSWORD, private_postgres

from clrsearch.errors import StorageError
from clrsearch.storage import StorageUrl, open_database
from clrsearch.storage.engine import optuna_storage

CANARIES = ("canary", quote("canary{}", safe=""))
RUN = ("--workers", "1", "--checkpoint-seconds", "0", "--trials", "1", "--set", "retries=0")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with private_postgres() as found:
        yield found


def url_of(port, password=PASSWORD, user="me", database="postgres") -> str:
    return f"postgresql://{user}:{quote(password, safe='{}/')}@127.0.0.1:{port}/{database}"


def opened(text) -> None:
    with open_database(StorageUrl(text), create=True):
        pass


def test_a_password_full_of_special_characters_opens_it(port) -> None:
    opened(url_of(port))


def test_an_unescaped_at_sign_names_the_escape(port) -> None:
    with pytest.raises(StorageError, match="%40") as caught:
        opened(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/postgres")
    assert "canary" not in str(caught.value)


def test_what_is_wrong_with_a_server_is_told_apart_in_one_line(port) -> None:
    with pytest.raises(StorageError, match="password authentication failed") as password:
        opened(url_of(port, "canary wrong"))
    with pytest.raises(StorageError, match='database "none" does not exist') as database:
        opened(url_of(port, database="none"))
    with pytest.raises(StorageError, match="Connection refused") as closed:
        opened(url_of(1))
    with pytest.raises(StorageError, match="failed to resolve host") as host:
        opened(url_of(port).replace("127.0.0.1", "no-such-host.invalid"))
    for caught in (password, database, closed, host):
        assert "canary" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "option"),
    [
        ("url", "timeout=canary"),
        ("postgresql", "auth_token=canary"),
        ("mysql", "auth_token=canary"),
        ("mysql", "read_timeout=canary"),
        ("mysql", "charset=canary"),
    ],
)
def test_options_that_a_driver_cannot_use_are_told_in_one_line(server, option, request) -> None:
    there = request.getfixturevalue(server)
    if there.file is not None:
        there.file.touch()
    with (
        pytest.raises(StorageError) as caught,
        open_database(StorageUrl(f"{there.reveal()}?{option}")),
    ):
        pass
    assert str(caught.value).startswith(f"{there}?***: ")
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_what_is_wrong_with_a_mysql_server_is_told_apart(mysql) -> None:
    url = sa.make_url(mysql.reveal())
    for changed, words in (
        (url.set(password="canary"), "Access denied for user"),
        (url.set(database="none_such"), "Unknown database 'none_such'"),
        (url.set(port=1), "Connection refused"),
        (url.set(host="no-such-host.invalid"), "Name or service not known"),
    ):
        with pytest.raises(StorageError, match=words) as caught:
            opened(changed.render_as_string(False))
        assert "canary" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_password_file_of_postgresqls_own_works(port, tmp_path) -> None:
    passfile = tmp_path / "pgpass"
    escaped = PASSWORD.replace(":", "\\:")
    passfile.write_text(f"127.0.0.1:{port}:*:me:{escaped}\n")
    passfile.chmod(0o600)
    opened(f"postgresql://me@127.0.0.1:{port}/postgres?passfile={passfile}")


def test_nothing_that_is_pickled_holds_it(port) -> None:
    url = StorageUrl(url_of(port))
    with open_database(url, create=True) as database:
        assert b"canary" not in pickle.dumps(database.optuna)
        with pytest.raises(TypeError):
            pickle.dumps(database)
        assert "canary" not in f"{database!r}{database.engine!r}"
    storage = optuna_storage(url)
    assert "canary" not in storage.url
    storage.engine.dispose()


def processes_below(pid) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for path in tasks for child in path.read_text().split()]
    return found + [grandchild for child in found for grandchild in processes_below(child)]


def watch(process) -> tuple[bytes, list[dict[str, str]]]:
    """The command lines and the environments of all processes under one, until it ends."""
    lines, environments = b"", {}
    while process.poll() is None:
        for pid in (process.pid, *processes_below(process.pid)):
            try:
                lines += Path(f"/proc/{pid}/cmdline").read_bytes()
                text = Path(f"/proc/{pid}/environ").read_bytes().decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            environments[pid] = dict(
                entry.split("=", 1) for entry in text.split("\0") if "=" in entry
            )
        time.sleep(0.05)
    return lines, list(environments.values())


@pytest.mark.parametrize("given", ["variable", "file", "file option"])
def test_a_run_shows_it_nowhere(port, task_dir, tmp_path, given) -> None:
    name = given.replace(" ", "_")
    url = url_of(port)
    file = tmp_path / "storage"
    file.write_text(url)
    environment = {key: value for key, value in os.environ.items() if "CLRSEARCH" not in key}
    environment["CLRSEARCH_CHECKPOINT_DIR"] = str(tmp_path / "checkpoints")
    variables = {"variable": {"CLRSEARCH_STORAGE": url}, "file": {"CLRSEARCH_STORAGE_FILE": file}}
    options = ["--storage-file", str(file)] if given == "file option" else []
    command = [sys.executable, "-m", "clrsearch", "run", "--task", "tiny.py:FailsLater"]
    running = subprocess.Popen(
        [*command, "--name", name, *RUN, *options],
        env={**environment, **variables.get(given, {})},
        cwd=task_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines, environments = watch(running)
    out, errors = running.communicate()
    assert running.returncode == 1
    assert "1 failed" in errors
    stored = everything_stored(url)
    assert "no such column" in stored
    assert "worker" in lines.decode()
    for canary in CANARIES:
        assert canary not in out + errors + lines.decode()
        for each in environments:
            holding = {key for key, value in each.items() if canary in value}
            assert holding <= ({"CLRSEARCH_STORAGE"} if given == "variable" else set())
        for path in (tmp_path / "checkpoints").rglob("*.pt"):
            assert canary.encode() not in path.read_bytes()
        assert canary not in stored


def everything_stored(url) -> str:
    """Every row of every table."""
    found = ""
    with open_database(StorageUrl(url)) as database, database.engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        assert {"clrsearch_slots", "trial_user_attributes"} <= set(tables)
        for table in tables:
            found += str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
    return found
