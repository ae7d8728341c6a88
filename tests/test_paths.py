"""No row of the database leads a command out of the checkpoint folder."""

from __future__ import annotations

import json
import uuid

import pytest
import torch

from clrsearch import service
from clrsearch.errors import StorageError, StudyError
from clrsearch.search import Studies, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings


@pytest.fixture
def studies(any_url, task_dir):
    """Two studies, and the attribute of the first as the worker role can write it."""
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=2)
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(any_url, create=True) as database:
        made = [
            Study.create(database, name, plan, facts, {"clrsearch": "0.1"})
            for name in ("spoilt", "sound")
        ]

        def write(**changes) -> None:
            Studies(database).change(made[0].record, **changes)

        yield made, write


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)  # a text is one on every server
@pytest.mark.parametrize("name", ["/tmp/victim", "", ".", "..", "../sound", None, 7, ["a"]])
def test_a_study_whose_uuid_is_none_is_refused_before_a_path_is_built(
    studies, clrsearch, tmp_path, monkeypatch, name
) -> None:
    _, write = studies
    root = tmp_path / "checkpoints"
    monkeypatch.setenv("CLRSEARCH_CHECKPOINT_DIR", str(root))
    kept = [root / str(uuid.uuid4()) / "trial-0.pt", tmp_path / "victim" / "thesis.tex"]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_text("years of work")
    write(uuid=str(tmp_path / "victim") if name == "/tmp/victim" else name)
    for command in (
        ["worker", "spoilt"],
        ["db", "prune-checkpoints"],
        ["best", "spoilt"],
    ):
        code, _, errors = clrsearch(*command)
        assert code == 2
        (line,) = errors.splitlines()
        assert line.startswith("clrsearch: the study spoilt cannot be read: uuid: ")
        assert line.endswith(" (created by clrsearch 0.1)")
    assert all(path.read_text() == "years of work" for path in kept)
    assert clrsearch("show", "sound")[0] == 0
    findings = json.loads(clrsearch("db", "check", "--json")[1])
    assert {each["what"]: each["state"] for each in findings if each["what"] != "slots"} == {
        "storage": "ok",
        "spoilt": "wrong",
        "sound": "ok",
    }
    assert clrsearch("delete", "spoilt", "--yes")[0] == 0  # its row alone
    assert all(path.read_text() == "years of work" for path in kept)


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)  # a text is one on every server
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"created": "yesterday"}, "created"),
        ({"versions": None}, "versions"),
        ({"stage": "encore"}, "stage"),
        ({"facts": []}, "facts"),
        ({"plan": {"trials": "many"}}, "plan.t"),
        ({"range_test": 1}, "range_test"),
    ],
)
def test_what_else_is_stored_of_a_study_is_refused_by_its_key(studies, changes, key) -> None:
    (spoilt, _), write = studies
    write(**changes)
    with pytest.raises(StudyError, match=f"the study spoilt cannot be read: {key}"):
        Study.open(spoilt.database, "spoilt")


@pytest.mark.parametrize("text", ["no JSON", '"a text"', "null", "[]"])
def test_an_attribute_that_is_no_table_is_refused(studies, text) -> None:
    (spoilt, _), _ = studies
    with spoilt.database.engine.begin() as connection:
        where = (
            f"study_id = {spoilt.id} AND {'`key`' if connection.dialect.name == 'mysql' else 'key'}"
        )
        connection.exec_driver_sql(
            f"UPDATE study_user_attributes SET value_json = '{text}' WHERE {where} = 'clrsearch'"
        )
    with pytest.raises(StudyError, match=r"spoilt cannot be read|spoilt is an Optuna study"):
        Study.open(spoilt.database, "spoilt")


def test_slots_in_a_state_that_there_is_not_are_refused(studies) -> None:
    (spoilt, _), _ = studies
    with spoilt.database.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE clrsearch_slots SET state = 'lost' WHERE study = '{spoilt.uuid}'"
        )
    with pytest.raises(StudyError, match="the study spoilt cannot be read: 'lost' is not a"):
        Study.open(spoilt.database, "spoilt")


def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    studies, task_dir, tmp_path, monkeypatch
) -> None:
    (study, _), _ = studies
    root = tmp_path / "checkpoints"
    monkeypatch.setenv("CLRSEARCH_CHECKPOINT_DIR", str(root))
    (tmp_path / "victim").mkdir()
    (kept := tmp_path / "victim" / "trial-0.pt").touch()
    root.mkdir()
    (root / study.uuid).symlink_to(tmp_path / "victim")
    for call in (
        lambda: service.delete("spoilt"),
        lambda: service.prune_checkpoints(),
        lambda: service.work(
            "spoilt", settings=WorkerSettings(task_dir=task_dir, allow_drift=True)
        ),
    ):
        said = f"{study.uuid} is a link that points outside {root}"
        with pytest.raises(StorageError, match=said):
            call()
    assert kept.exists()
    assert Study.open(study.database, "spoilt").uuid == study.uuid
