"""What the commands print, on a study that was worked off in this process."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.exports import FORMATS
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

TASKS = Path(__file__).parents[1] / "tasks_for_tests"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A database with a finished study of 11 trials, so that it has a baseline too."""
    file = tmp_path_factory.mktemp("finished") / "studies.db"
    url = StorageUrl(f"sqlite:///{file}")
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Tiny", trials=11, confirm=ConfirmPlan(enabled=False)
    )
    loaded = load_task(plan.task, folder=TASKS)
    facts = probe(loaded, device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(TASKS))
    service.work("mine", storage=url, settings=WorkerSettings(task_dir=TASKS))
    return file


@pytest.fixture
def study(finished, url, task_dir, monkeypatch):
    """The study, in a copy of its own."""
    monkeypatch.chdir(task_dir)
    shutil.copy(finished, url.file)
    return service.show("mine").snapshot


def test_best_prints_a_file_that_runs(study, clrsearch) -> None:
    code, out, errors = clrsearch("best", "mine")
    assert (code, errors) == (0, "")
    namespace: dict = {}
    exec(out, namespace)
    assert namespace["EPOCHS"] == 4
    assert f"mine, trial {study.recommended.number}" in out


@pytest.mark.parametrize(("format", "read"), [("json", json.loads), ("toml", tomllib.loads)])
def test_best_prints_values(format, read, study, clrsearch) -> None:
    _, out, _ = clrsearch("best", "mine", "--format", format)
    values = read(out)
    assert values["trial"] == study.recommended.number
    assert values["family"] == study.recommended.family
    assert values["metrics"]["error"] == study.recommended.value
    assert values["values"] == dict(service.best("mine").values)


@pytest.mark.parametrize("format", FORMATS)
def test_best_prints_every_format(format, study, clrsearch) -> None:
    code, out, errors = clrsearch("best", "mine", "--format", format)
    refused = format == "timm" and study.recommended.family == "cyclic"
    assert code == (2 if refused else 0)
    assert ("--format torch can" in errors) == refused
    said = "step,rate" if format == "table" else f"mine, trial {study.recommended.number}"
    assert (said in out) != refused


def test_best_names_the_formats_there_are(study, clrsearch) -> None:
    code, _, errors = clrsearch("best", "mine", "--format", "pytorch")
    assert code == 2
    assert all(format in errors for format in (*FORMATS, "json", "toml"))
    with pytest.raises(PlanError, match="unknown format 'pytorch': it must be one of torch, "):
        service.best("mine", format="pytorch")


def test_run_on_a_finished_study_shows_its_result(study, clrsearch) -> None:
    arguments = ("run", "--workers=0", "--task", "tiny.py:Tiny", "--name", "mine", "--trials", "11")
    code, out, errors = clrsearch(*arguments)
    assert (code, errors) == (0, "")
    assert out.startswith("mine is finished: 11 trials, ")
    assert "search baseline (constant)" in out
    assert "def make_scheduler(optimizer, steps_per_epoch):" in out
    assert "clrsearch run --workers=0 --task tiny.py:Tiny --name mine --trials 61\n" in out
    assert "clrsearch run --workers=0 --task tiny.py:Tiny --trials 11 --name mine-2\n" in out
    assert "clrsearch dashboard mine" in out
    assert "close " in out  # the other metric stands beside the searched one
    code, out, _ = clrsearch(*arguments, "--json")
    result = json.loads(out)
    assert (result["done"], result["search_best"]["value"]) == (11, study.search_best.value)
    assert "make_scheduler" in result["code"]


def test_list_and_show(study, clrsearch) -> None:
    _, out, _ = clrsearch("list")
    assert "mine" in out
    assert "11/11" in out
    _, out, _ = clrsearch("list", "--json")
    assert json.loads(out)["study"] == "mine"
    _, out, _ = clrsearch("show", "mine")
    assert out.startswith("mine: 11 of 11 trials done")
    _, out, _ = clrsearch("show", "mine", "--json")
    trials = [json.loads(line) for line in out.splitlines()]
    assert [trial["trial"] for trial in trials] == list(range(11))
    leader = study.recommended
    assert trials[leader.number]["value"] == leader.value
    assert trials[leader.number]["params"] == dict(leader.params)


def test_status(study, clrsearch) -> None:
    code, out, errors = clrsearch("status", "mine")
    assert (code, errors) == (0, "")
    assert out.startswith("mine  11 of 11 trials done\n")
    with open_database(service.storage_url(None)) as database:
        opened = Study.open(database, "mine")
        opened.grow(13)
        opened.slots.claim("laptop:9:1")
    _, out, _ = clrsearch("status", "mine")
    assert "1 claimed  1 open" in out
    assert "1 live worker, " in out
    assert out.splitlines()[-1].split()[:2] == ["laptop", "9"]
    _, out, _ = clrsearch("status", "mine", "--json")
    read = json.loads(out)
    assert (read["trials"], read["done"], read["slots"]["claimed"]) == (13, 11, 1)
    (worker,) = read["workers"]
    assert (worker["worker"], worker["slot"], worker["trial"]) == ("laptop:9:1", 11, None)
    seconds = [record.seconds for record in study.records]  # of 11 trials, fewer than 20
    assert read["trials_per_hour"] == pytest.approx(3600 * 11 / sum(seconds), abs=0.01)


def test_a_watch_ends_with_the_last_slot(study, clrsearch) -> None:
    code, out, errors = clrsearch("status", "mine", "--watch", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out)["done"] == 11


def test_a_watch_is_not_drawn_into_a_file(study, clrsearch) -> None:
    code, out, errors = clrsearch("status", "mine", "--watch")
    assert (code, out) == (2, "")
    assert "--watch needs a terminal" in errors


def test_show_a_trial_epoch_by_epoch(study, clrsearch) -> None:
    code, out, _ = clrsearch("show", "mine", str(study.recommended.number))
    assert code == 0
    rows = [line.split() for line in out.splitlines()[-4:]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert [row[2] for row in rows] == [f"{v:.4g}" for v in study.recommended.values.values()]
    code, _, errors = clrsearch("show", "mine", "99")
    assert (code, errors) == (2, "clrsearch: mine has no trial 99; it has trials 0 to 10\n")


def test_an_unknown_study_names_a_near_one(study, clrsearch) -> None:
    code, out, errors = clrsearch("best", "mien")
    assert (code, out, errors) == (2, "", "clrsearch: no study mien; did you mean mine?\n")


def test_list_where_there_is_no_database_yet(url, clrsearch) -> None:
    assert clrsearch("list") == (0, "no studies yet: clrsearch run starts one\n", "")
    assert not url.file.exists()


def test_replay(study, clrsearch) -> None:
    code, out, _ = clrsearch("replay", "mine", "0")
    assert (code, out) == (0, "trial 0 matches: all 4 epochs are identical to the last bit\n")


def test_delete_asks_first(study, clrsearch, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, errors = clrsearch("delete", "mien")
    assert (code, out, errors) == (2, "", "clrsearch: no study mien; did you mean mine?\n")
    code, _, errors = clrsearch("delete", "mine")
    assert code == 1
    assert errors.endswith("clrsearch: aborted\n")
    assert service.list_studies()
    code, out, _ = clrsearch("delete", "mine", "--yes")
    assert (code, out) == (0, "removed mine\n")
    code, out, _ = clrsearch("list")
    assert (code, out) == (0, "no studies yet: clrsearch run starts one\n")
