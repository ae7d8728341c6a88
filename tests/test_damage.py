"""A damaged row is told in one line, and does no harm to other studies."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

TASKS = Path(__file__).parent / "tasks_for_tests"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two finished studies, ``mine`` and ``other``."""
    file = tmp_path_factory.mktemp("whole") / "studies.db"
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Tiny", trials=2, confirm=ConfirmPlan(enabled=False)
    )
    facts = probe(load_task(plan.task, folder=TASKS), device=torch.device("cpu"))
    url = StorageUrl(f"sqlite:///{file}")
    with open_database(url, create=True) as database:
        for name in ("mine", "other"):
            Study.create(database, name, plan, facts, service.versions(TASKS))
    for name in ("mine", "other"):
        service.work(name, storage=url, settings=WorkerSettings(task_dir=TASKS))
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture
def rows(whole, url, tmp_path, monkeypatch):
    """Its rows, in a copy that every command uses."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(whole, url.file)
    connection = sqlite3.connect(url.file, isolation_level=None)
    yield connection
    connection.close()


STUDY = "UPDATE study_user_attributes SET value_json = ? WHERE key = 'clrsearch' AND study_id = 1"
END = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'end' AND trial_id = 1"
FAMILY = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'family' AND trial_id = 1"
PARAMS = "UPDATE trial_params SET distribution_json = ? WHERE trial_id = 1"


def with_key(path: str, value: Any) -> Any:
    """The attribute of a study with another value at a path."""

    def change(text: str) -> str:
        stored = json.loads(text)
        *above, last = path.split(".")
        inner = stored
        for key in above:
            inner = inner[key]
        inner[last] = value
        return json.dumps(stored)

    return change


OF_A_STUDY = {
    "no JSON": lambda text: "{",
    "cut off": lambda text: text[: len(text) // 2],
    "a number": lambda text: "7",
    "empty": lambda text: "{}",
    "no UUID": with_key("uuid", "../../victim"),
    "an unknown family": with_key("plan.families", ["sine"]),
    "wrong facts": with_key("facts", {"metric": 3}),
    "wrong versions": with_key("versions", "1"),
    "wrong stage": with_key("stage", ["search"]),
    "wrong bounds": with_key("plan.bounds", {"cyclic": {"max_lr": ["a", "b", "c"]}}),
}
OF_A_TRIAL = {
    "an end that is no JSON": (END, "{"),
    "an end that is a list": (END, "[1]"),
    "wrong metrics": (END, '{"metrics": {"error": "small"}}'),
    "an unknown family": (FAMILY, '"sine"'),
    "a family that is none": (FAMILY, "[1]"),
    "params that are no JSON": (PARAMS, "{"),
    "params of another kind": (PARAMS, '{"name": "X", "attributes": {}}'),
}
COMMANDS = (
    ("show", "mine"),
    ("best", "mine"),
    ("status", "mine"),
    ("report", "mine", "-o", "page.html"),
)


def assert_confined(clrsearch, *, read_by: tuple[tuple[str, ...], ...] = COMMANDS) -> None:
    code, out, errors = clrsearch("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["study", "other"]
    assert errors.startswith("clrsearch: ")
    assert errors.count("\n") == 1
    for command in read_by:
        code, _, errors = clrsearch(*command)
        assert (code, errors.count("\n")) == (2, 1), (command, errors)
    assert clrsearch("show", "other")[0] == 0
    code, out, errors = clrsearch("db", "check")
    assert (code, errors) == (1, "")
    assert any(line.split()[:2] == ["ok", "other"] for line in out.splitlines())


@pytest.mark.parametrize("damage", OF_A_STUDY)
def test_a_damaged_study(damage, rows, clrsearch) -> None:
    query = "SELECT value_json FROM study_user_attributes WHERE key = 'clrsearch' AND study_id = 1"
    (text,) = rows.execute(query).fetchone()
    rows.execute(STUDY, (OF_A_STUDY[damage](text),))
    assert_confined(clrsearch)
    code, out, errors = clrsearch("delete", "mine", "--yes")
    assert (code, out, errors) == (0, "removed mine\n", "")
    code, out, errors = clrsearch("list")
    assert (code, errors, "other" in out, "mine" in out) == (0, "", True, False)


@pytest.mark.parametrize("damage", OF_A_TRIAL)
def test_a_damaged_trial(damage, rows, clrsearch) -> None:
    rows.execute("UPDATE trials SET state = 'COMPLETE' WHERE trial_id = 1")
    update, text = OF_A_TRIAL[damage]
    rows.execute(update, (text,))
    if damage == "an unknown family":  # its schedule cannot be built, but it can be listed
        rows.execute(
            "UPDATE trial_intermediate_values SET intermediate_value = -1e9 WHERE trial_id = 1"
        )
        code, out, errors = clrsearch("list")
        assert (code, "other" in out, errors.count("\n")) == (0, True, 1)
    else:
        assert_confined(clrsearch)
    assert clrsearch("delete", "mine", "--yes")[:2] == (0, "removed mine\n")


def test_the_dashboard_lists_the_others(rows, url) -> None:
    from clrsearch.reports import Extras, Overlay

    rows.execute(STUDY, ("{",))
    with open_database(url) as database:
        overlay = Overlay(database, Extras(database, lambda study: None))
        names = [each.study_name for each in overlay.get_all_studies()]
    assert names == ["mine", "other"]


def test_no_name_and_no_text_of_a_row_commands_the_terminal(rows, clrsearch) -> None:
    name = "m\x1b[31m\n\u202eine"
    rows.execute("UPDATE studies SET study_name = ? WHERE study_id = 1", (name,))
    worker = json.dumps("host\x1b]0;title\x07:1:0")
    rows.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'worker'", (worker,))
    for command in (
        ("list",),
        ("show", name),
        ("show", name, "0"),
        ("status", name),
        ("best", name),
        ("best", "zzzzzz"),
        ("retry", name),
        ("db", "check"),
        ("plot", name, "scores", "-o", "x.png"),
        ("delete", name, "--yes"),
    ):
        _, out, errors = clrsearch(*command)
        said = out + errors
        assert "\x1b" not in said, command
        assert "\u202e" not in said, command
        assert "\x07" not in said, command
        if command != ("best", name):  # whose code is made of plain text
            assert r"\x1b[31m" in said, (command, said)
