"""Does the answer hold? A recommendation and its rivals under changed conditions."""

from __future__ import annotations

import json

import pytest
import torch

import clrsearch as package
from clrsearch import service
from clrsearch.errors import PlanError, StudyError, TaskError
from clrsearch.results import variation_json
from clrsearch.search import ConfirmPlan, Studies, Study, StudyPlan
from clrsearch.service.tryout import Tryout
from clrsearch.storage import SlotState, open_database, slot_owners
from clrsearch.tasks import load_task
from clrsearch.training import computing, probe, run_maker
from clrsearch.worker import WorkerSettings

CPU = torch.device("cpu")


def search(task_dir, name="mine", **keys):
    """A small study (4 epochs of 4 batches of 8), worked off in this process."""
    given = {"task": "tiny.py:Noisy", "families": ("linear",), "trials": 5}
    given["confirm"] = ConfirmPlan(top=2, seeds=2)
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(StudyPlan(**(given | keys)), name=name, workers=0, settings=settings)


def vary(task_dir, changes, settings=None, **how):
    settings = settings or WorkerSettings(device="cpu", task_dir=task_dir)
    return service.vary("mine", changes, workers=0, settings=settings, **how)


def names(url):
    with open_database(url) as database:
        ours, _ = Studies(database).names()
    return ours


def test_finalists_run_on_the_same_seeds_under_each_condition(url, task_dir) -> None:
    search(task_dir)
    found = vary(task_dir, {"weight_decay": [0.1], "batch_size": [4], "epochs": [6]}, seeds=2)
    labels = [each.label for each in found.conditions]
    assert labels == ["unchanged", "weight_decay=0.1", "batch_size=4", "epochs=6"]
    use = service.best("mine")
    assert found.recommended == use.trial
    families = [each.family for each in found.schedules]
    assert "constant" in families and len(found.schedules) in (2, 3)
    with open_database(url) as database:
        study = Study.open(database, "mine")
        own = Study.open(database, "mine.confirm").facts
        for label, steps, epochs in (("batch_size=4", 8, 4), ("epochs=6", 4, 6)):
            runs = study.under(label)
            assert runs.name == f"mine.vary.{label}"
            assert (runs.facts.steps_per_epoch, runs.facts.epochs) == (steps, epochs)
            for run in runs.history.records():
                assert run.state == "complete" and run.test.keys() == run.metrics.keys()
                assert run.params == study.trial(run.finalist).params  # its rates stay
                assert len(run.values) == epochs
            asked = {(each.number, seed) for each in found.schedules for seed in (1, 2)}
            assert runs.slots.runs() == dict.fromkeys(asked, SlotState.COMPLETE)
        assert own == study.facts
    assert found.conditions[0].holds(use.number) is True
    assert all(each.verdict is not None and not each.left for each in found.conditions)
    assert [each.name for each in service.list_studies()] == ["mine"]
    assert all(each.state == "ok" for each in service.check_database())


def test_a_run_is_that_of_the_changed_task(url, task_dir) -> None:
    search(task_dir)
    vary(task_dir, {"batch_size": [4], "weight_decay": [0.1]}, seeds=1)
    with open_database(url) as database, computing(CPU):
        study = Study.open(database, "mine")
        for label, size, decay in (("batch_size=4", 4, None), ("weight_decay=0.1", 8, 0.1)):
            runs = study.under(label)
            loaded = load_task("tiny.py:Noisy", folder=task_dir, weight_decay=decay)
            facts = probe(loaded, batch_size=size, device=CPU)
            assert facts == runs.facts
            make = run_maker(loaded.task, facts, CPU)
            for run in runs.history.records():
                again = make(runs.trace(run.family, run.params), seed=0, seed_index=1)
                seen = {}
                again.train(
                    lambda epoch, seen=seen: (
                        seen.update({epoch.number: epoch.metrics["error"]}) is None
                    )
                )
                assert seen == run.values


def test_what_cannot_be_varied_is_refused_before_anything_runs(url, task_dir) -> None:
    with pytest.raises(PlanError, match="vary: no change given"):
        vary(task_dir, {})
    search(task_dir, "own", task="tiny.py:Tiny", trials=3, confirm=ConfirmPlan(top=1, seeds=1))
    with pytest.raises(PlanError, match="vary 3: cannot be changed"):
        package.open("own").vary({3: 4})
    for how, message in (
        ({"seeds": 0}, "confirm.seeds: .* greater than or equal to 1, not 0"),
        ({"seeds": -1}, "confirm.seeds: .* greater than or equal to 1, not -1"),
        ({"seeds": 100_000}, "confirm.seeds: must be at most 1,000"),
        ({"top": 0}, "confirm.top: .* greater than or equal to 1, not 0"),
    ):
        with pytest.raises(PlanError, match=message):
            vary(task_dir, {"seed": [3]}, **how)
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    lengths = service.horizon_plan(StudyPlan(task="tiny.py:Tiny"), [1, 2], rates=[0.1], seeds=2)
    service.run(lengths, name="mine", workers=0, settings=settings)
    with pytest.raises(StudyError, match="mine is no search, but measures several lengths"):
        vary(task_dir, {"seed": [3]})
    assert names(url) == ["own", "own.confirm", "mine"]


def test_weight_decays_are_compared_in_the_optimizers_groups() -> None:
    plan = StudyPlan(task="digits", weight_decay=0.0005)
    with Tryout(plan, device="cpu", task_dir=None, data_dir=None, here=True) as tryout:
        own, same, thrice = tryout.weight_decays(None, 0.0005, "3x")
    assert set(own) == {5e-4} and same == own
    assert set(thrice) == {3 * 5e-4}


def test_only_what_is_missing_is_run(url, task_dir) -> None:
    search(task_dir)
    before = vary(task_dir, {"weight_decay": [0.1]}, seeds=1)
    notes = []
    again = vary(task_dir, {"weight_decay": [0.1]}, seeds=1, on_note=notes.append)
    assert (again, notes) == (before, [])
    more = vary(task_dir, {"weight_decay": [0.1], "seed": [3]}, seeds=2, on_note=notes.append)
    runs = len(before.schedules)
    assert notes == [f"weight_decay=0.1: {runs} runs to do", f"seed=3: {2 * runs} runs to do"]
    for each in more.conditions[1:]:
        assert {len(standing.scores) for standing in each.verdict.standings} == {2}


def test_what_was_interrupted_goes_on_and_any_worker_may_help(url, task_dir) -> None:
    search(task_dir)
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=1)
    first = vary(task_dir, {"weight_decay": [0.1], "seed": [3]}, settings, seeds=2)
    assert first.interrupted
    runs = 2 * len(first.schedules)
    assert [each.left for each in first.conditions[1:]] == [runs - 1, runs]
    assert f"{2 * runs - 1} runs are left." in first.sentence
    alone = WorkerSettings(device="cpu", task_dir=task_dir)
    service.work("mine.vary.seed=3", settings=alone)
    notes = []
    found = vary(task_dir, {"weight_decay": [0.1], "seed": [3]}, seeds=2, on_note=notes.append)
    assert notes == [f"weight_decay=0.1: {runs - 1} runs to do"]
    assert not found.interrupted and [each.left for each in found.conditions] == [0, 0, 0]


def test_they_are_cancelled_and_deleted_with_their_study(any_url, task_dir) -> None:
    search(task_dir)
    search(task_dir, name="other")
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=1)
    found = vary(task_dir, {"weight_decay": [0.1]}, settings, seeds=1)
    assert service.cancel("mine") == len(found.schedules) - 1
    assert not vary(task_dir, {"weight_decay": [0.1]}, seeds=1).conditions[1].left
    service.delete("mine")
    assert names(any_url) == ["other", "other.confirm"]
    with open_database(any_url) as database:
        assert len(slot_owners(database.engine)) == 2


def test_an_option_may_change_the_optimizer_and_its_rates(url, task_dir) -> None:
    bounds = {"linear": {"lr": 0.5}, "constant": {"lr": 1e-3}}  # of Adam, whose own rate is 0.02
    search(task_dir, task="tiny.py:Tiny", bounds=bounds, trials=3)
    found = vary(task_dir, {"options.optimizer": ["adam", "plain"]}, seeds=1)
    assert all(each.verdict is not None for each in found.conditions)
    with open_database(url) as database:
        assert Study.open(database, "mine.vary.options.optimizer=adam").facts.momentum == "betas"
        plain = Study.open(database, "mine.vary.options.optimizer=plain")
        assert plain.plan.options == {"optimizer": "plain"}


def test_a_loop_is_told_where_its_weight_decay_comes_from(url, task_dir) -> None:
    given = {"metric": "error", "direction": "minimize", "epochs": 4, "trials": 3}
    search(task_dir, task="loops.py:train", **given)
    with pytest.raises(TaskError, match="custom training loop, which makes its own optimizer"):
        vary(task_dir, {"weight_decay": ["3x"]})
    with pytest.raises(PlanError, match="batch_size: a custom training loop makes its own"):
        vary(task_dir, {"batch_size": [4]})
    assert names(url) == ["mine", "mine.confirm"]


def test_wrong_input_is_refused_before_anything_is_stored(url, task_dir) -> None:
    search(task_dir, trials=3, task="tiny.py:Tiny", confirm=ConfirmPlan(top=1, seeds=1))
    for changes, error, message in (
        ({"weight_decay": ["3x"]}, TaskError, "that of SGD is 0, which a factor of 3"),
        ({"weight_decay": [0]}, PlanError, "weight_decay=0: that is how the study was searched"),
        ({"options.width": [3]}, TaskError, "options.width: is unknown"),
        ({"options.optimizer": ["sgd"]}, PlanError, "optimizer=sgd: that is how the study was"),
        ({"batch_size": [4, 100]}, PlanError, "100 exceeds the 34 training samples"),
        ({"epochs": [4]}, PlanError, "vary epochs=4: that is how the study was searched"),
        ({"lr": [0.1]}, PlanError, "vary lr: cannot be changed"),
    ):
        with pytest.raises(error, match=message):
            vary(task_dir, {"seed": [5], **changes})
    assert names(url) == ["mine", "mine.confirm"]


def test_there_must_be_a_recommendation(url, task_dir) -> None:
    search(task_dir, trials=3, confirm=ConfirmPlan(enabled=False))
    with pytest.raises(StudyError, match="mine has no recommendation on fresh seeds yet: clr"):
        vary(task_dir, {"seed": [1]})
    with pytest.raises(StudyError, match="no study other"):
        service.vary("other", {"seed": [1]})


def test_the_command_prints_a_table_or_json(url, task_dir, clrsearch) -> None:
    search(task_dir, trials=3)
    how = ["--seeds", "1", "--workers", "0", "--task-dir", str(task_dir), "--device", "cpu"]
    code, out, err = clrsearch("confirm", "mine", "--vary", "weight_decay=0.1,0.2", *how)
    assert code == 0
    assert "weight_decay=0.1: " in err and "weight_decay=0.2: " in err
    head, unchanged, *rows = out[out.index("error under") :].splitlines()[:4]
    assert head.split()[:3] == ["error", "under", "seeds"]
    assert unchanged.split()[:2] == ["unchanged", "2"]
    assert [row.split()[:2] for row in rows] == [
        ["weight_decay=0.1", "1"],
        ["weight_decay=0.2", "1"],
    ]
    assert "One seed cannot tell whether linear (trial " in out.replace("\n", " ")
    assert "holds under weight_decay=0.1, weight_decay=0.2." in out.replace("\n", " ")
    code, out, _ = clrsearch("confirm", "mine", "--vary", "weight_decay=0.1,0.2", "--json", *how)
    (line,) = out.splitlines()
    found = vary(task_dir, {"weight_decay": [0.1, 0.2]}, seeds=1)
    assert (code, json.loads(line)) == (0, json.loads(variation_json(found)))

    study = package.open("mine", task_dir=task_dir)
    again = study.vary({"weight_decay": [0.1, 0.2]}, seeds=1, device="cpu")
    assert again.sentence == found.sentence
    assert study.vary({"weight_decay": 0.1}, seeds=1).conditions == found.conditions[:2]


def test_wrong_options_are_told_in_a_line(url, task_dir, clrsearch) -> None:
    search(task_dir, trials=3, confirm=ConfirmPlan(top=1, seeds=1))
    for words, message in (
        (["seed=1", "--batch-size", "4"], "--batch-size cannot be given with --vary"),
        (["seed=1", "--trials", "4"], "--trials cannot be given with --vary"),
        (["seed"], "--vary seed: expected KEY=VALUE or KEY=VALUE,VALUE"),
        (["seed=1,"], "--vary seed=1,: expected KEY=VALUE"),
        (["seed=one"], "seed: must be a whole number, not 'one'"),
        (["seed=1", "--workers", "-1"], "workers must be at least 0, not -1"),
    ):
        code, _, err = clrsearch("confirm", "mine", "--vary", *words)
        assert code == 2 and err.startswith(f"clrsearch: {message}")
