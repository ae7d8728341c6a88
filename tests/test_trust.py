"""What a row of the database names is not executed before its source is known to be the same."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe

Edit = Callable[[Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def edited(url, task_dir, tmp_path, monkeypatch) -> Edit:
    """Change the row of a finished study of two trials, one of them by hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    plan = StudyPlan(
        task="tiny.py:Tiny",
        trials=2,
        families=("manual",),
        manual=((4, 0.01),),
        baseline="manual",
        confirm=ConfirmPlan(enabled=False),
    )
    facts = probe(load_task(plan.task, folder=tmp_path), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(tmp_path))
    service.work("mine")

    def edit(change: Callable[[dict[str, Any]], None]) -> None:
        with sqlite3.connect(url.file) as connection:
            query = "SELECT value_json FROM study_user_attributes WHERE key = 'clrsearch'"
            stored = json.loads(connection.execute(query).fetchone()[0])
            change(stored)
            update = "UPDATE study_user_attributes SET value_json = ? WHERE key = 'clrsearch'"
            connection.execute(update, (json.dumps(stored),))

    return edit


def by_hand(stored: dict[str, Any], name: str, source: bytes) -> None:
    stored["plan"]["manual"] = name
    stored["versions"]["rate source"] = sha256(source).hexdigest()


LOOKING = (
    ("best", "mine"),
    ("show", "mine", "0"),
    ("report", "mine", "-o", "page.html"),
    ("preview", "mine"),
)


@pytest.mark.parametrize("command", LOOKING, ids=lambda each: each[0])
def test_a_function_of_pythons_own_is_not_called(command, edited, clrsearch) -> None:
    edited(lambda stored: by_hand(stored, "os:umask", Path(os.__file__).read_bytes()))
    mask = os.umask(0o22)
    os.umask(mask)
    code, _, errors = clrsearch(*command)
    assert os.umask(mask) == mask
    assert (code, errors) == (
        2,
        "clrsearch: os is a module of Python's standard library, which has no tasks or rates\n",
    )


@pytest.mark.parametrize("command", LOOKING, ids=lambda each: each[0])
@pytest.mark.parametrize("name", ["other.py:rate", "other_package.module:rate"])
def test_another_function_is_not_loaded(name, command, edited, clrsearch, tmp_path) -> None:
    mark = "from pathlib import Path\nPath('loaded').touch()\ndef rate(step, steps): return 0.1\n"
    (tmp_path / "other.py").write_text(mark)
    (tmp_path / "other_package").mkdir()
    for file in ("__init__", "module"):
        (tmp_path / "other_package" / f"{file}.py").write_text(mark)
    edited(lambda stored: by_hand(stored, name, b"another"))
    code, _, errors = clrsearch(*command)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"the source of {name} has changed" in errors
    assert not (tmp_path / "loaded").exists()


def test_a_function_must_be_defined_where_it_is_named(edited, clrsearch, tmp_path) -> None:
    source = "from os import umask as rate\n"
    (tmp_path / "other.py").write_text(source)
    edited(lambda stored: by_hand(stored, "other.py:rate", source.encode()))
    code, _, errors = clrsearch("best", "mine")
    assert (code, errors) == (
        2,
        "clrsearch: other.py:rate is defined in posix: name it by that module\n",
    )


@pytest.mark.parametrize(
    "command",
    [
        ("worker", "mine"),
        ("replay", "mine", "0"),
        ("range-test", "mine"),
        ("confirm", "mine", "--workers", "1"),
        ("launch", "local", "mine", "--workers", "1"),
    ],
    ids=lambda each: each[0],
)
def test_another_task_is_not_loaded(command, edited, clrsearch, tmp_path) -> None:
    (tmp_path / "other.py").write_text("open('loaded', 'w')\nfrom tiny import Tiny\n")
    edited(lambda stored: stored["plan"].update(task="other.py:Tiny"))
    code, _, errors = clrsearch(*command)
    assert (code, errors.count("\n")) == (2, 1)
    assert "the source of other.py:Tiny has changed" in errors
    assert not (tmp_path / "loaded").exists()
