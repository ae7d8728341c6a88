"""A recommended schedule for another batch size or length: printed, and confirmed by a study."""

from __future__ import annotations

import json
import tomllib

import pytest
import torch

import clrsearch as package
from clrsearch import service
from clrsearch.errors import PlanError, PlanMismatch, StudyError
from clrsearch.exports import FORMATS
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.worker import WorkerSettings


def search(task_dir, name="mine", **keys):
    """A small study of the tiny task (4 epochs of 4 batches of 8), worked off in this process."""
    given = {"task": "tiny.py:Tiny", "families": ("linear",), "baseline": "linear", "trials": 6}
    given["confirm"] = ConfirmPlan(top=1, seeds=2)
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(StudyPlan(**(given | keys)), name=name, workers=0, settings=settings)
    return service.best(name, task_dir=task_dir)


def test_best_prints_it_rescaled_and_says_so(url, task_dir, clrsearch) -> None:
    found = search(task_dir)
    code, out, _ = clrsearch("best", "mine", "--batch-size", "4", "--epochs", "10")
    assert code == 0
    assert "rescaled to    10 epochs of 8 batches of 4\n" in out
    assert (
        "not confirmed  rescaled from batch size 8 and 4 epochs: rates x 0.5, the linear rule "
        "(Goyal et al., arXiv:1706.02677); a schedule tuned for one number of epochs may not suit "
        "another\n"
    ) in out
    assert "to confirm     clrsearch confirm mine --batch-size 4 --epochs 10\n" in out
    assert "EPOCHS = 10\nSTEPS_PER_EPOCH = 8\n" in out

    again = service.best("mine", batch_size=4, epochs=10)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = again.make_scheduler(optimizer, 8)
    rates = []
    for _ in range(80):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(list(again.trace().rates[0]), rel=1e-9)
    assert again.schedule.lr == found.schedule.lr / 2
    assert again.params == found.params
    assert again.rescaled is not None and again.rescaled.factor == 0.5


def test_other_epochs_alone_leave_the_rates_as_they_are(url, task_dir, clrsearch) -> None:
    search(task_dir)
    _, out, _ = clrsearch("best", "mine", "--epochs", "8")
    assert (
        "not confirmed  rescaled from 4 epochs: rates unchanged; a schedule tuned for one number "
        "of epochs may not suit another\n"
    ) in out
    assert "to confirm     clrsearch confirm mine --epochs 8\n" in out


def test_no_command_is_proposed_that_would_be_refused(url, task_dir) -> None:
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    lengths = service.horizon_plan(StudyPlan(task="tiny.py:Tiny"), [1, 2], rates=[0.1], seeds=2)
    service.run(lengths, name="lengths", workers=0, settings=settings)
    code = service.best("lengths", epochs=6, batch_size=16).code
    assert "not confirmed" in code and "to confirm" not in code
    assert ", the best for 1 epoch on 2 seeds\n" in service.best("lengths", epochs=1).code
    with pytest.raises(StudyError, match="lengths is no search, but measures several lengths"):
        service.transfer("lengths", epochs=6)


def test_the_values_say_that_they_are_not_confirmed(url, task_dir, clrsearch) -> None:
    search(task_dir)
    _, out, _ = clrsearch("best", "mine", "--batch-size", "16", "--format", "json")
    told = json.loads(out)
    assert (told["confirmed"], told["factor"]) == (False, 2.0)
    assert told["rule"] == "linear (Goyal et al., arXiv:1706.02677)"
    assert told["rescaled_from"] == {"epochs": 4, "steps_per_epoch": 4, "batch_size": 8}
    assert (told["batch_size"], told["steps_per_epoch"]) == (16, 2)
    assert "metrics" not in told  # which are not those of this schedule
    _, out, _ = clrsearch("best", "mine", "--batch-size", "16", "--format", "toml")
    assert tomllib.loads(out)["confirmed"] is False
    for format in FORMATS:
        if format != "timm":
            assert service.best("mine", format=format, batch_size=16).code


def test_the_studys_own_values_are_the_confirmed_schedule(url, task_dir) -> None:
    found = search(task_dir)
    same = service.best("mine", batch_size=8, epochs=4)
    assert same.rescaled is None
    assert same.code == found.code
    assert package.open("mine").rescaled(batch_size=8).code == found.code
    assert package.open("mine").rescaled(batch_size=4).facts.steps_per_epoch == 8


def test_impossible_values_are_refused(url, task_dir, clrsearch) -> None:
    search(task_dir)
    for option, value, message in (
        ("--batch-size", "100", "batch_size: 100 exceeds the 34 training samples"),
        ("--batch-size", "0", "Input should be greater than or equal to 1"),
        ("--epochs", "-3", "Input should be greater than or equal to 1"),
        ("--epochs", "10000000000", "epochs: must be at most 1,000,000"),
    ):
        code, _, err = clrsearch("best", "mine", option, value)
        assert code == 2 and message in err
    with pytest.raises(PlanError, match=r"epochs: .* greater than or equal to 1, not 0"):
        service.best("mine", epochs=0)


def test_a_run_of_a_confirmation_is_not_said_to_be_the_best(url, task_dir) -> None:
    search(task_dir)
    assert "expected to be the best" not in service.best("mine.confirm").code


def test_a_study_searches_the_peak_again(url, task_dir) -> None:
    found = search(task_dir, baseline="constant")
    rescaled = service.best("mine", batch_size=16, epochs=6)
    planned = service.transfer("mine", batch_size=16, epochs=6, task_dir=task_dir)
    plan = planned.plan
    assert planned.name == "mine-b16-e6"
    assert (plan.batch_size, plan.epochs, plan.trials) == (16, 6, 8)
    assert plan.families[0] == found.schedule.family
    assert plan.confirm.seeds == 2 and plan.confirm.enabled
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    result = service.run(plan, name=planned.name, workers=0, settings=settings)
    now = result.snapshot
    assert (now.done, now.confirmed.left) == (8, 0)
    with open_database(url) as database:
        study = Study.open(database, planned.name)
        assert (study.facts.steps_per_epoch, study.facts.batch_size) == (2, 16)  # probed anew
        ours = [each for each in study.history.records() if each.family == plan.families[0]]
        first = study.space.build(ours[0].family, ours[0].params)
        assert first == rescaled.schedule  # exactly
    (shape,) = {
        tuple(v for k, v in each.params.items() if k not in ("lr", "max_lr")) for each in ours
    }
    peak = rescaled.schedule.lr
    assert all(peak / 4 <= each.params["lr"] <= peak * 4 for each in ours)
    assert len(shape) == len(ours[0].params) - 1
    families = [each.family for each in now.records]
    assert {families.count(each) for each in set(families)} == {8 // len(set(families))}

    again = service.transfer("mine", batch_size=16, epochs=6, task_dir=task_dir)
    assert again == service.transfer("mine", batch_size=16, epochs=6)
    assert service.run(again.plan, name=again.name, workers=0, settings=settings).began_finished
    more = service.transfer("mine", batch_size=16, epochs=6, trials=10)
    grown = service.run(more.plan, name=more.name, workers=0, settings=settings)
    assert grown.snapshot.done == 10


def test_a_transfer_of_an_earlier_recommendation_is_not_resumed(url, task_dir) -> None:
    search(task_dir)
    planned = service.transfer("mine", batch_size=16)
    stale = planned.plan.model_copy(
        update={"bounds": {"linear": {"lr": (1e-3, 1e-2)}}, "start": {}}
    )
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(stale, name=planned.name, workers=0, settings=settings)
    with pytest.raises(
        PlanMismatch, match=r"mine-b16 exists.*: bounds, start would differ; choose"
    ):
        service.transfer("mine", batch_size=16)
    assert service.transfer("mine", batch_size=16, name="another").plan == planned.plan


def test_a_recommended_baseline_has_a_rival(url, task_dir) -> None:
    bounds = {"linear": {"lr": 1e-9}, "constant": {"lr": 0.1}}  # one of which does not train
    search(task_dir, baseline="constant", families=("linear",), bounds=bounds)
    assert service.best("mine").trial.family == "constant"
    plan = service.transfer("mine", batch_size=16).plan
    assert (plan.families, plan.baseline) == (("constant", "linear"), "constant")
    assert plan.start == pytest.approx({"constant": 0.2, "linear": 2e-9})


def test_limits_and_earlier_studies_stay_with_the_source(url, task_dir) -> None:
    search(task_dir, name="old", families=("step",))
    given = {"like": ("old",), "trunks": 4, "allocation": "led", "epochs_total": 40, "trials": 100}
    search(task_dir, families=("step",), **given)
    plan = service.transfer("mine", batch_size=16).plan
    assert (plan.like, plan.trunks, plan.budgeted, plan.trials) == ((), None, False, 8)


def test_cycles_that_a_search_of_that_length_would_not_try_are_confirmed_too(url, task_dir) -> None:
    given = {"bounds": {"cyclic": {"cycles": 1, "cycle_momentum": False}}}
    search(task_dir, families=("cyclic",), baseline="cyclic", epochs=8, **given)
    planned = service.transfer("mine", epochs=60)
    assert planned.plan.bounds["cyclic"]["cycles"] == 1  # a search has 3 to 15
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    plan = planned.plan.model_copy(update={"trials": 1, "confirm": ConfirmPlan(enabled=False)})
    now = service.run(plan, name="longer", workers=0, settings=settings).snapshot
    (record,) = now.records
    assert now.schedules[record.number].step_size_up == 120


def test_what_is_no_transfer_is_refused(url, task_dir, clrsearch) -> None:
    search(task_dir)
    with pytest.raises(PlanError, match="mine has this batch size and length already: clrsearch"):
        service.transfer("mine", batch_size=8)
    with pytest.raises(PlanMismatch, match="the study mine exists, and is not mine with another"):
        service.transfer("mine", batch_size=16, name="mine")
    with pytest.raises(StudyError, match="no study other"):
        service.transfer("other", batch_size=16)
    with pytest.raises(PlanError, match="seeds: must be at most"):
        service.transfer("mine", batch_size=16, seeds=100_000)
    for values, message in (
        ({"trials": 0}, "trials: .* greater than or equal to 1, not 0"),
        ({"trials": 200_000}, "trials: must be at most 100,000"),
        ({"top": 0}, "confirm.top: .* greater than or equal to 1"),
        ({"seeds": 0}, "confirm.seeds: .* greater than or equal to 1"),
        ({"batch_size": 0}, "batch_size: .* greater than or equal to 1"),
        ({"batch_size": "64"}, "batch_size: must be a whole number, not '64'"),
        ({"batch_size": 64.5}, "batch_size: must be a whole number, not 64.5"),
        ({"epochs": 0}, "epochs: .* greater than or equal to 1"),
        ({"epochs": 10**10}, "epochs: must be at most 1,000,000"),
    ):
        with pytest.raises(PlanError, match=message):
            service.transfer("mine", **{"batch_size": 16} | values)
    with pytest.raises(StudyError, match=r"mine.confirm has the runs of a confirmation: name mine"):
        service.transfer("mine.confirm", batch_size=16)
    for option in ("--trials", "--name"):
        code, _, err = clrsearch("confirm", "mine", option, "9")
        assert (code, err) == (2, f"clrsearch: {option} needs --batch-size or --epochs\n")


def test_the_command_runs_it_and_proposes_itself(url, task_dir, clrsearch) -> None:
    search(task_dir)
    words = ["confirm", "mine", "--batch-size", "16", "--trials", "4", "--task-dir", str(task_dir)]
    code, out, _ = clrsearch(*words, "--workers", "0")
    assert code == 0
    assert "mine-b16: 4 of 4 trials done" in out
    line = "clrsearch confirm mine --batch-size 16"
    assert f"Search further:           {line} --task-dir {task_dir} --workers 0 --trials 54" in out
    code, out, _ = clrsearch("confirm", "mine", "--task-dir", str(task_dir), "--workers", "0")
    assert code == 0
    assert "Search further" not in out and "Start another study" not in out  # it takes no --trials
