"""Database URLs: what is accepted, what is refused, what is shown."""

from __future__ import annotations

import pickle
import re
import sys
import traceback
from pathlib import Path

import pytest

from clrsearch.errors import StorageError
from clrsearch.storage import StorageUrl


def test_a_relative_file_becomes_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = StorageUrl("sqlite:///studies.db").absolute()
    assert url.file == tmp_path / "studies.db"
    monkeypatch.chdir("/")
    assert url.file == tmp_path / "studies.db"


def test_the_default_is_a_file_in_the_users_data_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    file = StorageUrl.default().file
    assert file.name == "studies.db"
    assert Path(tmp_path) in file.parents
    assert file.parent.is_dir()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies.db", "not a database URL: use sqlite:///FILE"),
        ("", "not a database URL: use sqlite:///FILE"),
        ("sqlite://studies.db", "three slashes"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("mongodb://localhost/x", "that database is not supported: use sqlite:///FILE"),
    ],
)
def test_what_cannot_be_used_is_refused(text, message) -> None:
    with pytest.raises(StorageError, match=message):
        StorageUrl(text)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StorageError) as caught:
        StorageUrl("oracle://me:canary@host/db")
    assert "canary" not in str(caught.value)


SERVERS = [
    ("postgresql://me@host/db", "postgresql", "postgresql+psycopg://me@host/db"),
    ("postgresql+psycopg2://me@host/db", "postgresql", "postgresql+psycopg://me@host/db"),
    ("mysql://me@host:1/db", "mysql", "mysql+pymysql://me@host:1/db"),
    ("mariadb://me@host/db", "mysql", "mysql+pymysql://me@host/db"),
]


@pytest.mark.parametrize(("text", "dialect", "shown"), SERVERS)
def test_servers_get_the_driver_of_their_extra(text, dialect, shown) -> None:
    url = StorageUrl(text)
    assert (url.dialect, str(url), url.file, url.has_password) == (dialect, shown, None, False)
    assert url.absolute() is url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("postgres://me@host/db", "use postgresql://"),
        ("postgresql://me:p@ss@host/db", "must be written as %40"),
        ("postgresql://me@host", "names no database on the server"),
        ("postgresql://canary", "names no database on the server"),
        ("postgresql://me:canary@host:port/db", "not a database URL"),
        ("postgresql:me:canary@host/db", "not a database URL"),
        ("?password=canary", "not a database URL"),
        ("canary", "not a database URL"),
        ("canary://host/db", "that database is not supported"),
        ("host=h password=canary", "not a database URL"),
        ("postgresql://host=h password=canary", "not a database URL"),
        ("postgresql://user=me password=canary@host/db", "not a database URL"),
        ("postgresql://host/db password=canary", "not a database URL"),
        ("postgresql://host/db&password=canary", "not a database URL"),
        ("postgresql://host;password=canary/db", "not a database URL"),
        ("mysql://host/db;Pwd=canary", "not a database URL"),
        ("jdbc:postgresql://h/db?user=u&password=canary", "not a database URL"),
        ("Server=h;Pwd=canary", "not a database URL"),
        ("postgresql://me/canary@host/db", "must be written as %40 or %2F"),
        ("postgresql://me/x:canary@host/db", "must be written as %40 or %2F"),
        ("sqlite://me:canary@host/db", "three slashes"),
    ],
)
def test_a_url_of_the_wrong_form_is_told_without_its_password(text, message) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        StorageUrl(text)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:canary@host/db",
        "postgresql://host/db?user=me&password=canary",
        "postgresql://host/db?sslpassword=canary",
        "mysql://me:canary@host/db",
        "mysql://me@host/db?passwd=canary",
        "postgresql://me@host/db?pass=canary",
        "postgresql://me@host/db?sslmode=require&auth_token=canary",
        "postgresql://me:can;a=r&y@host/db?x=canary",
    ],
)
def test_a_password_is_seen_by_the_driver_alone(text) -> None:
    url = StorageUrl(text)
    assert "canary" in url.reveal()
    assert "canary" not in f"{url} {url!r}"
    assert url.has_password
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(url)


def test_nothing_of_a_query_is_shown() -> None:
    url = StorageUrl("postgresql://me@/db?host=/run/postgresql&passfile=/me/canary&key=canary")
    assert str(url) == "postgresql+psycopg://me@/db?***"
    assert str(StorageUrl("sqlite:///studies.db?x=canary")) == "sqlite:///studies.db?***"
    assert not StorageUrl("postgresql://me@host/db?passfile=/me/pass&sslkey=/me/k").has_password


def test_a_file_may_have_any_name() -> None:
    assert StorageUrl("sqlite:////tmp/lr=0.1;seed=1/a@b.db").file == Path(
        "/tmp/lr=0.1;seed=1/a@b.db"
    )


def test_a_missing_driver_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(StorageError, match=re.escape("pip install 'clrsearch[postgres]'")):
        StorageUrl("postgresql://me@host/db")
    with pytest.raises(StorageError, match=re.escape("pip install 'clrsearch[mysql]'")):
        StorageUrl("mysql://me@host/db")


def test_a_file_keeps_the_url_out_of_sight(tmp_path, monkeypatch) -> None:
    file = tmp_path / "storage"
    file.write_text("postgresql://me:canary@host/db\n")
    monkeypatch.chdir(tmp_path)
    url = StorageUrl.from_file(Path("storage"))
    assert "canary" in url.reveal()
    assert url.environment() == {"CLRSEARCH_STORAGE_FILE": str(file), "CLRSEARCH_STORAGE": ""}
    given = StorageUrl("postgresql://me:canary@host/db")
    assert given.environment() == {
        "CLRSEARCH_STORAGE_FILE": "",
        "CLRSEARCH_STORAGE": "postgresql+psycopg://me:canary@host/db",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "must contain exactly one"),
        (b"a b", "must contain exactly one"),
        (b"\xff", "text"),
    ],
)
def test_a_file_without_a_url_is_told(tmp_path, content, message) -> None:
    file = tmp_path / "storage"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StorageError, match=message) as caught:
        StorageUrl.from_file(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "given", ["postgresql://me:canary@host/db", "host=h password=canary", "canary;Pwd=canary"]
)
def test_a_url_in_place_of_its_file_is_not_shown(given) -> None:
    with pytest.raises(
        StorageError, match="cannot be read: No such file or directory \\(its name"
    ) as caught:
        StorageUrl.from_file(Path(given))
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_relative_file_in_a_file_is_absolute(tmp_path, monkeypatch) -> None:
    (tmp_path / "storage").write_text("sqlite:///studies.db")
    monkeypatch.chdir(tmp_path)
    assert StorageUrl.from_file(Path("storage")).file == tmp_path / "studies.db"
