"""Schedules by hand and rates of groups, from the plan to the code that is handed over."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from clrsearch import service
from clrsearch.cli import output
from clrsearch.errors import PlanMismatch, TaskError, TaskRaised
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_rate, load_task
from clrsearch.worker import WorkerSettings

ALONE = ConfirmPlan(enabled=False)
HAND_WRITTEN = [0.05] * 4 + [0.01] * 12  # tiny.py:hand_written over 4 epochs of 4 steps


def run(task_dir, **keys):
    plan = StudyPlan(
        **({"families": ("cyclic",), "task": "tiny.py:Tiny", "trials": 4, "confirm": ALONE} | keys)
    )
    return service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(task_dir=task_dir, device="cpu")
    )


def played(code: str, groups: list[dict]) -> list[list[float]]:
    """The rates of the groups at each of 16 steps under a generated file."""
    namespace: dict = {}
    exec(code, namespace)
    weights = [torch.zeros(1, requires_grad=True) for _ in groups]
    optimizer = torch.optim.SGD(
        [{"params": [w], **group} for w, group in zip(weights, groups, strict=True)], momentum=0.9
    )
    scheduler = namespace["make_scheduler"](optimizer, 4)
    rates = []
    for _ in range(16):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def test_pieces_compete_with_the_families_as_they_are_written_first(url, task_dir) -> None:
    now = run(
        task_dir, families=("linear", "manual"), baseline="manual", manual=((1, 0.05), (3, 0.01))
    ).snapshot
    by_hand = [record for record in now.records if record.family == "manual"]
    assert len(by_hand) == 2
    assert by_hand[0].params == {"scale": 1.0}
    assert by_hand[1].params != {"scale": 1.0}
    with open_database(url) as database:
        trace = Study.open(database, "mine").trace("manual", {"scale": 1.0})
    assert trace.rates.tolist() == [HAND_WRITTEN]


def test_a_function_is_loaded_by_every_worker_and_never_from_the_database(
    url, task_dir, tmp_path, monkeypatch, capsys
) -> None:
    result = run(
        task_dir,
        families=("manual",),
        baseline="manual",
        manual="tiny.py:hand_written",
        bounds={"manual": {"scale": 1.0}},
    )
    assert result.snapshot.done == 4
    best = service.best("mine", task_dir=task_dir)
    rates = played(best.code, [{"lr": 7.0}])
    assert [rate for (rate,) in rates] == HAND_WRITTEN
    assert "from tiny import hand_written" in best.code
    shown = service.show("mine", 0, task_dir=task_dir)
    assert shown.rates == (0.05, 0.01, 0.01, 0.01)
    output.print_best(best, "json")
    values = json.loads(capsys.readouterr().out)["values"]
    assert values["rates"] == "tiny.py:hand_written"

    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match="no such file"):
        service.best("mine")
    assert [each.name for each in service.list_studies()] == ["mine"]


def test_a_function_that_has_changed_is_refused(url, task_dir, tmp_path) -> None:
    folder = tmp_path / "tasks"
    shutil.copytree(task_dir, folder)
    (folder / "rates.py").write_text("def rate(step, steps_per_epoch):\n    return 0.1\n")
    keys = {"families": ("manual",), "baseline": "manual", "manual": "rates.py:rate"}
    run(folder, **keys)
    (folder / "rates.py").write_text("def rate(step, steps_per_epoch):\n    return 0.2\n")
    with pytest.raises(PlanMismatch, match=r"the source of rates\.py:rate has changed"):
        run(folder, trials=6, **keys)

    for look in (service.best, lambda *a, **k: service.show("mine", 0, task_dir=folder)):
        with pytest.raises(PlanMismatch, match=r"the source of rates\.py:rate has changed since"):
            look("mine", task_dir=folder)


def test_a_file_that_the_code_could_not_import_is_refused_before_anything_trains(
    url, task_dir
) -> None:
    with pytest.raises(TaskError, match=r"my-rates\.py:rate: the schedule's code will import"):
        run(task_dir, families=("manual",), manual="my-rates.py:rate")
    assert not url.file.exists()


def test_a_file_with_task_and_function_is_executed_once(url, tmp_path, monkeypatch) -> None:
    (tmp_path / "both.py").write_text(
        "from pathlib import Path\n"
        "from clrsearch.tasks.digits import Digits as Both\n"
        "with Path(__file__).with_name('log').open('a') as log: log.write('x')\n"
        "def rate(step, steps_per_epoch):\n    return 0.1\n"
    )
    load_task("both.py:Both", folder=tmp_path)
    load_rate("both.py:rate", folder=tmp_path)
    assert (tmp_path / "log").read_text() == "x"
    (tmp_path / "both.py").write_text((tmp_path / "both.py").read_text() + "\n")
    load_rate("both.py:rate", folder=tmp_path)
    assert (tmp_path / "log").read_text() == "xx"


def test_a_function_in_a_file_that_is_called_like_a_module_is_its_own(
    url, task_dir, tmp_path
) -> None:
    folder = tmp_path / "tasks"
    shutil.copytree(task_dir, folder)
    (folder / "json.py").write_text("def rate(step, steps_per_epoch):\n    return 0.1\n")
    run(folder, families=("manual",), baseline="manual", manual="json.py:rate")
    assert "from json import rate" in service.best("mine", task_dir=folder).code


def test_a_function_that_raises_shows_its_own_traceback(url, task_dir) -> None:
    with pytest.raises(TaskRaised, match=r"IndexError while calling .*:raises_later at step 3"):
        run(task_dir, families=("manual",), manual="tiny.py:raises_later")
    assert not url.file.exists()


def test_a_groups_factor_is_searched_beside_every_family(url, task_dir, capsys) -> None:
    result = run(task_dir, task="tiny.py:Headed", trials=12, groups={"head": (0.5, 5)})
    now = result.snapshot
    factors = [record.params["groups.head"] for record in now.records]
    assert {record.family for record in now.records} == {"cyclic", "constant"}
    assert all(0.5 <= factor <= 5 for factor in factors)
    assert len(set(factors)) > 6
    firsts = [record for record in now.records if record.slot in (0, 1, 9)]
    assert [record.params["groups.head"] for record in firsts] == [1.0] * 3

    best = service.best("mine")
    factor = best.trial.params["groups.head"]
    output.print_result(result, json=False)
    leader = next(ln for ln in capsys.readouterr().out.splitlines() if ln.startswith("search best"))
    assert f", groups.head {now.search_best.params['groups.head']:.4g}" in leader
    assert best.multipliers == {"head": factor}
    output.print_best(best, "json")
    assert json.loads(capsys.readouterr().out)["groups"] == {"head": factor}
    for body, head in played(best.code, [{"lr": 0.5}, {"lr": 5.0}]):
        assert head == pytest.approx(10 * factor * body, rel=1e-12)
    assert service.replay("mine", best.trial.number, device="cpu", task_dir=task_dir).matches


def test_a_fixed_factor_holds_under_every_family(url, task_dir) -> None:
    now = run(
        task_dir,
        task="tiny.py:Headed",
        families=("cosine", "cyclic", "step"),
        groups={"head": 3},
    ).snapshot
    with open_database(url) as database:
        study = Study.open(database, "mine")
        for record in now.records:
            body, head = study.trace(record.family, record.params).rates
            assert head.tolist() == pytest.approx((30 * body).tolist(), rel=1e-14)
