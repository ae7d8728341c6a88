"""``clrsearch db check`` and ``db prune-checkpoints``, on every database."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import optuna
import pytest
import torch
from identities import writer

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import Checkpoints, probe
from clrsearch.worker import WorkerSettings


@pytest.fixture
def done(any_url, task_dir):
    """A study of four trials that have ended, and its confirmation."""
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Tiny", trials=4, confirm=ConfirmPlan(top=1, seeds=2)
    )
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(any_url, create=True) as database:
        study = Study.create(database, "mine", plan, facts, service.versions(task_dir))
        service.work("mine", settings=WorkerSettings(task_dir=task_dir, device="cpu"))
        yield study


@pytest.fixture
def check(clrsearch):
    """Run it: the exit code, and the findings but for the first, on the database."""

    def run() -> tuple[int, list[dict[str, str]]]:
        code, out, errors = clrsearch("db", "check", "--json")
        assert errors == ""
        first, *others = json.loads(out)
        assert (first["what"], first["state"]) == ("storage", "ok")
        return code, others

    return run


def change(study, statement: str) -> None:
    with study.database.engine.begin() as connection:
        assert connection.exec_driver_sql(statement).rowcount > 0


def test_a_database_in_order(done, check, clrsearch) -> None:
    code, found = check()
    assert code == 0
    assert [(each["what"], each["state"]) for each in found] == [
        ("mine", "ok"),
        ("mine.confirm", "ok"),
    ]
    assert found[0]["says"].startswith("4 slots: ")
    code, out, _ = clrsearch("db", "check")
    assert code == 0
    assert len({line.index(" slots: ") - 1 for line in out.splitlines()[1:]}) == 1  # in a column


def test_what_was_changed_by_hand_is_wrong(done, check) -> None:
    trial = done.history.records()[0]
    change(done, f"UPDATE clrsearch_slots SET state = 'failed' WHERE study = '{done.uuid}'")
    change(
        done,
        "DELETE FROM trial_intermediate_values WHERE step = 2 AND trial_id IN (SELECT trial_id "
        f"FROM trials WHERE study_id = {done.id} AND number = {trial.number})",
    )
    code, found = check()
    assert code == 1
    wrong = [each for each in found if each["state"] == "wrong"]
    assert [each["what"] for each in wrong] == ["mine"] * 2
    assert [each["says"] for each in wrong] == [
        "slots 0, 1, 2, 3: used up, but none of their trials ended in that state",
        f"trials {trial.number}: complete, but their values are not those of epochs 1 to 4",
    ]
    assert all("edited by hand" in each["remedy"] for each in wrong)


def test_what_a_killed_worker_left_is_noted_with_who_mends_it(done, check, task_dir) -> None:
    change(
        done,
        "UPDATE clrsearch_slots SET state = 'claimed', worker = 'gone', expires = 1.0 "
        f"WHERE study = '{done.uuid}' AND number = 3",
    )
    code, found = check()
    assert code == 0
    notes = [each for each in found if each["state"] == "note"]
    assert [each["says"] for each in notes] == [
        "trials 3: ended, but their slots are not used up",
        "1 slots are held by workers that no longer respond",
    ]
    done.slots.release("gone")
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, device="cpu"))
    code, found = check()
    assert [each["state"] for each in found] == ["ok", "ok"]


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)  # it is about files
def test_checkpoints_that_no_worker_can_go_on_from_are_noted(
    done, check, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_CHECKPOINT_DIR", str(tmp_path))
    done.grow(8)
    checkpoints = Checkpoints(tmp_path / done.uuid)
    numbers = []
    for index in range(4):
        slot = done.slots.claim(f"here:{index}")
        params = done.space.seed_points("cyclic")[0]
        numbers.append(done.begin(slot, params, {"worker": "w", "device": "cpu"}))
        done.slots.bind(slot, numbers[-1])
        whose = writer(numbers[-1], study=done.uuid, params=params)
        checkpoints.save(whose, {"w": torch.ones(9)}, confirm=lambda: True)
    _, damaged, swapped, gone = (checkpoints.path(number) for number in numbers)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    gone.replace(swapped)
    code, found = check()
    assert code == 0
    assert [(each["says"], each["remedy"]) for each in found if each["state"] == "note"] == [
        (
            f"the checkpoint {damaged} cannot be used: it is damaged (its checksum does not match)",
            f"trial {numbers[1]} starts over when a worker claims it",
        ),
        (
            f"the checkpoint {swapped} cannot be used: it belongs to another trial "
            f"(trial: {numbers[3]})",
            f"trial {numbers[2]} starts over when a worker claims it",
        ),
    ]


def test_a_study_that_cannot_be_read_is_named_and_the_others_are_checked(
    done, check, clrsearch
) -> None:
    optuna.create_study(study_name="another", storage=done.database.optuna)
    attributes = done.database.optuna.get_study_user_attrs(done.id)["clrsearch"]
    plan = {**attributes["plan"], "moon": "full"}
    done.database.optuna.set_study_user_attr(done.id, "clrsearch", {**attributes, "plan": plan})
    code, found = check()
    assert code == 1
    assert [(each["what"], each["state"]) for each in found] == [
        ("mine", "wrong"),
        ("mine.confirm", "ok"),
        ("others", "ok"),
        ("slots", "note"),
    ]
    version = attributes["versions"]["clrsearch"]
    text = "the study mine cannot be read: plan.moon: Extra inputs are not permitted "
    assert found[0]["says"] == f"{text}(created by clrsearch {version})"
    code, _, errors = clrsearch("best", "mine")
    assert code == 2
    assert errors.startswith(f"clrsearch: {text}")


def test_without_a_database(any_url, clrsearch) -> None:
    for command in ("check", "prune-checkpoints"):
        code, out, errors = clrsearch("db", command)
        assert (code, out) == (2, "")
        assert "no studies at" in errors


def leave(root: Path, name: str, *trials: int) -> Path:
    """A study's folder as killed workers leave it."""
    checkpoints = Checkpoints(root / name)
    for trial in trials:
        checkpoints.save(writer(trial), {"w": torch.ones(1000)}, confirm=lambda: True)
    checkpoints.sign("gone:1")
    return root / name


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)  # it is about files
def test_only_what_running_trials_need_is_kept(done, clrsearch, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLRSEARCH_CHECKPOINT_DIR", str(tmp_path / "shared"))
    done.grow(6)
    slot = done.slots.claim("here:1")
    number = done.begin(slot, done.space.seed_points("cyclic")[0], {"worker": "w", "device": "cpu"})
    folder = leave(tmp_path / "shared", done.uuid, 0, 1, number)
    Checkpoints(folder).sign("here:1")
    (folder / "trial-0.123.tmp").touch()
    sibling = leave(tmp_path / "shared", done.confirmation().uuid, 0)
    foreign = leave(tmp_path / "shared", str(uuid.uuid4()), 0)
    (tmp_path / "shared" / "papers").mkdir()
    code, out, errors = clrsearch("db", "prune-checkpoints")
    assert (code, errors) == (0, "")
    first, second, third = out.splitlines()
    size = (foreign / "trial-0.pt").stat().st_size
    assert first == f"{tmp_path / 'shared'}: 6 files removed, {3 * size / 1e6:.1f} MB"
    assert (second, third) == (
        "left alone, as they belong to no study in this database:",
        f"  {foreign}",
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        f"trial-{number}.pt",
        "worker-here%3A1",
    ]
    assert not sibling.exists()
    assert len(list(foreign.iterdir())) == 2
    assert (tmp_path / "shared" / "papers").is_dir()
    assert clrsearch("db", "prune-checkpoints")[1].startswith(f"{tmp_path / 'shared'}: 0 files")


def test_beside_a_sqlite_file_deleted_studies_leave_nothing(url, task_dir, clrsearch) -> None:
    with open_database(url, create=True):
        pass
    root = url.file.with_name("studies-checkpoints")
    folder = leave(root, str(uuid.uuid4()), 0, 7)
    (kept := leave(root, str(uuid.uuid4()), 0) / "notes.txt").touch()
    code, out, _ = clrsearch("db", "prune-checkpoints")
    assert code == 0
    assert out.splitlines()[0].startswith(f"{root}: 5 files removed, ")
    assert not folder.exists()
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"]
