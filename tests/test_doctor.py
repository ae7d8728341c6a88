"""``clrsearch doctor``: each line says how it is and what to do, and no line has a secret."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from clrsearch import service
from clrsearch.storage import open_database


@pytest.fixture
def doctor(clrsearch):
    """Run it: exit code, and the findings by what they are of."""

    def run(*arguments: str) -> tuple[int, dict[str, dict[str, str]], str]:
        code, out, _ = clrsearch("doctor", *arguments, "--json")
        return code, {each["what"]: each for each in json.loads(out)}, out

    return run


def test_a_machine_in_order(any_url, doctor, tmp_path) -> None:
    with open_database(any_url, create=True):
        pass
    code, found, _ = doctor("--device", "cpu", "--checkpoint-dir", str(tmp_path))
    assert code == 0
    assert {what: each["state"] for what, each in found.items() if "launch" not in what} == {
        "python": "ok",
        "device": "ok",
        "storage": "ok",
        "role": "ok",
        "latency": "ok",
        "checkpoints": "ok",
    }
    name = {"sqlite": "SQLite 3.", "postgresql": "PostgreSQL ", "mysql": "MariaDB "}
    assert name[any_url.dialect] in found["storage"]["says"]
    assert "0 studies" in found["storage"]["says"]
    assert str(tmp_path) in found["checkpoints"]["says"]
    assert "clock" not in found


def test_a_role_that_may_only_read(postgresql, doctor, monkeypatch) -> None:
    with open_database(postgresql, create=True) as database, database.engine.begin() as connection:
        role = f"reader_{database.engine.url.database[-8:]}"
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'canary'")
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    url = sa.make_url(postgresql.reveal()).set(username=role, password="canary")
    monkeypatch.setenv("CLRSEARCH_STORAGE", url.render_as_string(hide_password=False))
    try:
        code, found, out = doctor("--device", "cpu")
    finally:
        with open_database(postgresql) as database, database.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")
    assert code == 0
    assert found["role"]["state"] == "note"
    assert "permission denied" in found["role"]["says"]
    assert "clrsearch db roles" in found["role"]["remedy"]
    assert "canary" not in out


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////no/such/folder/s.db", "the database folder /no/such/folder"),
        ("postgresql://me:canary@127.0.0.1:1/studies", "Connection refused"),
        ("studies.db", "not a database URL: use sqlite:///FILE"),
    ],
)
def test_a_storage_that_cannot_be_used(url, says, doctor, monkeypatch) -> None:
    monkeypatch.setenv("CLRSEARCH_STORAGE", url)
    code, found, out = doctor("--device", "cpu")
    assert code == 1
    assert found["storage"]["state"] == "wrong"
    assert says in found["storage"]["says"]
    assert "canary" not in out


def test_a_device_and_a_folder_that_cannot_be_used(url, doctor, tmp_path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "checkpoints")
    code, found, _ = doctor("--device", "cuda:7", "--checkpoint-dir", folder)
    assert code == 1
    assert found["device"]["state"] == found["checkpoints"]["state"] == "wrong"
    assert "--device cpu" in found["device"]["remedy"]
    assert "--checkpoint-dir" in found["checkpoints"]["remedy"]
    assert found["storage"]["state"] == "note"
    assert found["storage"]["remedy"].startswith("clrsearch run ")
    assert found["storage"]["remedy"].endswith(" creates the tables")


def test_as_text_each_line_begins_with_how_it_is(url, clrsearch) -> None:
    code, out, _ = clrsearch("doctor", "--device", "cpu")
    assert code == 0
    lines = out.splitlines()
    assert all(line.split()[0] in ("ok", "note", "->") for line in lines)
    assert any(each.what == "storage" for each in service.examine(device="cpu"))
