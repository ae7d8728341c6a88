"""Database URLs: what is accepted, what is refused, what is shown."""

from __future__ import annotations

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
        ("studies.db", "did you mean sqlite:///studies.db"),
        ("", "not a database URL: ''"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mongodb://localhost/x", "mongodb is not supported"),
    ],
)
def test_what_cannot_be_used_is_refused(text, message) -> None:
    with pytest.raises(StorageError, match=message):
        StorageUrl(text)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StorageError) as caught:
        StorageUrl("oracle://me:canary@host/db")
    assert "canary" not in str(caught.value)
