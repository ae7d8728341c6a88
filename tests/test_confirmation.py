"""From a finished search to a verdict on fresh seeds, with real workers and databases."""

from __future__ import annotations

import json

import pytest
import torch

from clrsearch import service
from clrsearch.cli import output
from clrsearch.errors import PlanError, StudyError
from clrsearch.search import ConfirmPlan, Study, StudyPlan, every_run
from clrsearch.service.confirming import begin_confirmation
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe
from clrsearch.training.device import computing
from clrsearch.worker import WorkerSettings

CPU = torch.device("cpu")


def make(task_dir, name="mine", **keys) -> None:
    """Make a study."""
    plan = StudyPlan(**({"families": ("cyclic",), "task": "tiny.py:Noisy", "trials": 11} | keys))
    facts = probe(load_task(plan.task, folder=task_dir), device=CPU)
    with open_database(service.storage_url(None), create=True) as database:
        Study.create(database, name, plan, facts, service.versions(task_dir))


def work_here(task_dir, name="mine", **keys):
    """Make a study and work it off in this process, its confirmation included."""
    make(task_dir, name, **keys)
    service.work(name, settings=WorkerSettings(device="cpu", task_dir=task_dir))
    return service.show(name).snapshot


def test_the_best_are_run_again_on_fresh_seeds(url, task_dir) -> None:
    now = work_here(task_dir, confirm=ConfirmPlan(top=2, seeds=3))
    assert now.total == now.done == 11
    assert [each.name for each in service.list_studies()] == ["mine"]
    runs = now.confirmed.runs
    assert now.confirmed.slots == {SlotState.COMPLETE: 9}
    assert now.confirmed.left == 0
    pairs = [(run.finalist, run.seed_index) for run in runs]
    finalists = sorted({finalist for finalist, _ in pairs})
    assert sorted(pairs) == [(finalist, seed) for finalist in finalists for seed in (1, 2, 3)]
    by_number = {record.number: record for record in now.records}
    assert {by_number[finalist].family for finalist in finalists} == {"cyclic", "constant"}
    for run in runs:
        assert run.params == by_number[run.finalist].params
        assert sorted(run.values) == [1, 2, 3, 4]
        assert run.test.keys() == run.metrics.keys()


def test_a_run_is_that_of_its_seed_index_and_is_tested_once(url, task_dir) -> None:
    now = work_here(task_dir, confirm=ConfirmPlan(top=1, seeds=2))
    loaded = load_task("tiny.py:Noisy", folder=task_dir)
    with open_database(url) as database, computing(CPU):
        study = Study.open(database, "mine")
        for run in now.confirmed.runs:
            data = TaskData(loaded.task, study.facts.batch_size, CPU)
            again = SequentialRun(
                loaded.task,
                study.facts,
                data,
                study.trace(run.family, run.params),
                seed=study.plan.seed,
                seed_index=run.seed_index,
                device=CPU,
            )
            expected = {n: again.next_epoch().metrics["error"] for n in range(1, 5)}
            assert run.values == expected
            assert run.test == again.test()
            assert run.test["error"] != run.metrics["error"]
    searched = {record.number: record for record in now.records}
    assert all(not record.test for record in now.records)
    assert all(run.value != searched[run.finalist].value for run in now.confirmed.runs)


def test_the_chosen_one_is_what_best_gives_and_list_shows(url, task_dir, capsys) -> None:
    work_here(task_dir, confirm=ConfirmPlan(top=2, seeds=3))
    best = service.best("mine")
    assert best.trial.number == best.verdict.chosen
    assert "chosen on 3 fresh seeds" in best.code
    (standing,) = (s for s in best.verdict.standings if s.trial == best.trial.number)
    fresh = [run.value for run in service.show("mine").snapshot.confirmed.runs]
    assert all(score in fresh for score in standing.scores.values())
    mean = sum(standing.scores.values()) / 3
    assert f"fresh seeds  error {mean:.4g}\n" in best.code
    output.print_list(service.list_studies(), [], json=False)
    (_, row) = capsys.readouterr().out.splitlines()
    chosen = f"{best.trial.family} (trial {best.trial.number})"
    assert row.endswith(f"error   {chosen}: error {mean:.4g} on 3 fresh seeds")
    output.print_list(service.list_studies(), [], json=True)
    assert json.loads(capsys.readouterr().out)["recommended"] == best.trial.number


def test_without_it_what_is_expected_to_be_best_is_used(url, task_dir) -> None:
    now = work_here(task_dir, confirm=ConfirmPlan(enabled=False))
    assert now.confirmed is None
    best = service.best("mine")
    assert (best.verdict, best.trial.number) == (None, now.expected_best.number)
    assert "on one seed, expected to be the best of the search" in best.code


def test_more_seeds_and_finalists_run_only_what_is_missing(url, task_dir) -> None:
    work_here(task_dir, confirm=ConfirmPlan(top=1, seeds=2))
    before = service.show("mine").snapshot.confirmed
    assert before.total == 4
    plan = service.confirmation_plan("mine", top=2, seeds=3)
    result = service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    after = result.snapshot.confirmed
    assert (after.total, after.left) == (9, 0)
    assert after.runs[:4] == before.runs
    again = service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    assert again.began_finished


def test_finalists_of_an_earlier_version_with_equal_traces_are_one_standing(url, task_dir) -> None:
    make(task_dir, trials=2, confirm=ConfirmPlan(top=2, seeds=2))
    smith = {"base_ratio": 0.25, "cycles": 1, "cycle_momentum": False}
    attributes = {"worker": "w", "device": "cpu"}
    with open_database(url) as database:
        study = Study.open(database, "mine")
        trials = []
        for mode in ("triangular", "triangular2", "triangular"):
            params = {**smith, "mode": mode, "max_lr": 0.01 if len(trials) < 2 else 0.02}
            number = study.begin(study.slots.claim("w"), params, attributes)
            study.log.report(number, {4: 0.5})
            study.log.complete(number, 0.5, {})
            trials.append(study.trial(number))
        sibling = study.confirm(trials, every_run(trials, 2))
        while (slot := sibling.slots.claim("w")) is not None:
            params = sibling.finalists()[slot.finalist].params
            number = sibling.begin(slot, params, attributes)
            value = 0.1 + slot.finalist // 2 + 0.01 * slot.seed_index
            sibling.log.report(number, {4: value})
            sibling.log.complete(number, value, {"test": {"error": value}})
            sibling.slots.finish(slot, SlotState.COMPLETE)
        now = service.show("mine").snapshot.confirmed
        assert now.slots == {SlotState.COMPLETE: 6}
        assert sorted(each.trial for each in now.verdict.standings) == [0, 2]
        assert now.test == {0: pytest.approx(0.115), 2: pytest.approx(1.115)}


def test_no_schedule_is_tried_twice(url, task_dir) -> None:
    now = work_here(task_dir, task="tiny.py:Tiny", trials=12, confirm=ConfirmPlan(top=3, seeds=1))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        played = [study.trace(each.family, each.params) for each in now.records]
    seen = {
        (each.rates.tobytes(), each.momenta is not None and each.momenta.tobytes())
        for each in played
    }
    assert len(seen) == len(now.records) == 12
    assert [each.params["mode"] for each in now.records[:2]] == ["triangular", "exp_range"]


def test_where_only_one_schedule_is_left_it_is_tried_again(url, task_dir) -> None:
    bounds = {"cyclic": {"mode": ("triangular", "triangular2"), "max_lr": 0.01, "base_ratio": 0.25}}
    bounds["cyclic"]["cycle_momentum"] = False
    plan = {"trials": 3, "seeds": 1, "bounds": bounds, "confirm": ConfirmPlan(top=3, seeds=1)}
    now = work_here(task_dir, **plan)
    assert now.done == 3
    assert len({each.value for each in now.records if each.family == "cyclic"}) == 1
    (finalist,) = {run.finalist for run in now.confirmed.runs if run.family == "cyclic"}
    assert finalist == 0


def test_it_goes_on_where_it_was_broken_off(url, task_dir) -> None:
    work_here(task_dir, confirm=ConfirmPlan(enabled=False))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        study.plan_confirmation(ConfirmPlan(top=1, seeds=2))
        sibling = begin_confirmation(study)
        slot = sibling.slots.claim("killed")
        params = sibling.finalists()[slot.finalist].params
        number = sibling.begin(slot, params, {"worker": "killed", "device": "cpu"})
        sibling.slots.release("killed")
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    runs = service.show("mine").snapshot.confirmed.runs
    assert len(runs) == 4
    assert {run.state for run in runs} == {"complete"}
    assert runs[number].finalist == slot.finalist


def test_a_search_that_grows_is_confirmed_anew(url, task_dir) -> None:
    work_here(task_dir, confirm=ConfirmPlan(top=1, seeds=2))
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Noisy", trials=25, confirm=ConfirmPlan(top=1, seeds=2)
    )
    result = service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    assert result.snapshot.done == 25
    assert result.snapshot.confirmed.left == 0
    finalists = {run.finalist for run in result.snapshot.confirmed.runs}
    assert any(finalist > 10 for finalist in finalists)  # one that was not there before


def test_who_was_a_finalist_before_the_search_grew_runs_with_the_new_seeds_too(
    url, task_dir
) -> None:
    work_here(task_dir, trials=6, confirm=ConfirmPlan(top=1, seeds=2))
    first = {run.finalist for run in service.show("mine").snapshot.confirmed.runs}
    for trials, seeds in ((30, 2), (30, 4)):
        confirm = ConfirmPlan(top=1, seeds=seeds)
        plan = StudyPlan(families=("cyclic",), task="tiny.py:Noisy", trials=trials, confirm=confirm)
        service.run(
            plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
        )
    confirmed = service.show("mine").snapshot.confirmed
    assert confirmed.left == 0
    standings = confirmed.verdict.standings
    assert first < {each.trial for each in standings}
    assert all(sorted(each.scores) == [1, 2, 3, 4] for each in standings)


def test_a_run_on_a_fresh_seed_is_replayed_on_that_seed(url, task_dir) -> None:
    now = work_here(task_dir, confirm=ConfirmPlan(top=1, seeds=2))
    for run in now.confirmed.runs:
        assert service.replay("mine.confirm", run.number, device="cpu", task_dir=task_dir).matches


def test_delete_removes_it_too(url, task_dir) -> None:
    work_here(task_dir, confirm=ConfirmPlan(top=1, seeds=1))
    service.delete("mine")
    with open_database(url) as database, database.engine.connect() as connection:
        for table in ("studies", "clrsearch_slots", "trials"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


def test_a_study_whose_name_ends_like_a_confirmations_is_its_users(url, task_dir) -> None:
    alone, with_it = ConfirmPlan(enabled=False), ConfirmPlan(top=1, seeds=2)
    work_here(task_dir, "mine.confirm", trials=3, confirm=alone)
    now = work_here(task_dir, trials=3, confirm=with_it)
    assert set(now.confirmed.slots) == {SlotState.COMPLETE}
    assert service.show("mine.confirm").snapshot.total == 3
    assert [each.name for each in service.list_studies()] == ["mine.confirm", "mine"]
    service.delete("mine")
    assert [each.name for each in service.list_studies()] == ["mine.confirm"]


def cancelling(stage, cancelled):
    """Cancels the study once, when a worker has ended a trial of that stage."""

    def cancel(record, study) -> None:
        if study.stage == stage and not cancelled:
            cancelled.append(service.cancel("mine"))

    return cancel


def test_after_cancel_no_confirmation_begins_until_it_is_asked_for(url, task_dir) -> None:
    cancelled: list[int] = []
    how = {"settings": WorkerSettings(device="cpu", task_dir=task_dir)}
    make(task_dir, trials=5, confirm=ConfirmPlan(top=1, seeds=2))
    service.work("mine", on_end=cancelling("search", cancelled), **how)
    now = service.show("mine").snapshot
    assert (cancelled, now.done, now.total, now.confirmed) == ([4], 1, 1, None)
    plan = StudyPlan(
        families=("cyclic",), task="tiny.py:Noisy", trials=7, confirm=ConfirmPlan(top=1, seeds=2)
    )
    grown = service.run(plan, name="mine", workers=0, **how).snapshot
    assert (grown.done, grown.total, grown.confirmed) == (3, 3, None)
    asked = service.confirmation_plan("mine", top=1, seeds=2)
    confirmed = service.run(asked, name="mine", workers=0, **how).snapshot.confirmed
    assert confirmed.left == 0
    assert set(confirmed.slots) == {SlotState.COMPLETE}


def test_a_confirmation_is_cancelled_and_taken_up_again(url, task_dir) -> None:
    cancelled: list[int] = []
    how = {"settings": WorkerSettings(device="cpu", task_dir=task_dir)}
    make(task_dir, trials=3, confirm=ConfirmPlan(top=1, seeds=3))
    service.work("mine", on_end=cancelling("confirm", cancelled), **how)
    (open_then,) = cancelled
    now = service.show("mine").snapshot.confirmed
    assert now.slots == {SlotState.COMPLETE: 1, SlotState.CANCELLED: open_then}
    service.work("mine", **how)
    assert service.show("mine").snapshot.confirmed.slots == now.slots
    asked = service.confirmation_plan("mine", top=1, seeds=3)
    again = service.run(asked, name="mine", workers=0, **how).snapshot.confirmed
    assert again.slots == {SlotState.COMPLETE: 1 + open_then}


def test_an_unfinished_search_is_not_confirmed(url, task_dir) -> None:
    work_here(task_dir, trials=1, confirm=ConfirmPlan(enabled=False))
    with open_database(url) as database:
        Study.open(database, "mine").grow(3)
    with pytest.raises(StudyError, match="2 trials of mine have not ended"):
        service.confirmation_plan("mine", top=1, seeds=1)


def test_a_search_without_a_complete_trial_is_not_confirmed(url, task_dir) -> None:
    work_here(task_dir, task="tiny.py:Explodes", trials=2)
    assert service.show("mine").snapshot.confirmed is None
    with pytest.raises(StudyError, match="no trial of mine is complete"):
        service.confirmation_plan("mine", top=1, seeds=1)


def test_a_family_without_a_complete_trial_is_named(url, task_dir, capsys) -> None:
    plan = StudyPlan(
        task="tiny.py:Noisy",
        trials=6,
        families=("constant", "exponential", "linear"),
        bounds={"exponential": {"lr": 1e9}},
        confirm=ConfirmPlan(top=1, seeds=2),
    )
    result = service.run(
        plan, name="mine", workers=0, settings=WorkerSettings(device="cpu", task_dir=task_dir)
    )
    assert {run.family for run in result.snapshot.confirmed.runs} == {"constant", "linear"}
    assert result.snapshot.confirmed.absent == ("exponential",)
    output.print_result(result, json=False)
    assert "Not compared (no complete trial): exponential." in capsys.readouterr().out


def test_a_comparison_gives_each_family_as_many_slots(task_dir) -> None:
    plan = StudyPlan(task="tiny.py:Noisy", trials=9, families=("cyclic", "constant"))
    found = service.comparison(plan, task_dir=task_dir)
    counts = found.plan.labels(8).count
    assert abs(counts("cyclic") - counts("constant")) == 1
    (note,) = found.notes
    assert note.startswith("9 trials are fewer than 5 for each of the 2 families")
    with pytest.raises(PlanError, match="1 is too few for 2 families"):
        service.comparison(plan.model_copy(update={"trials": 1}), task_dir=task_dir)


def test_families_that_do_not_fit_are_left_out_by_name(task_dir) -> None:
    plan = StudyPlan(task="tiny.py:Noisy", trials=100, epochs=2)
    found = service.comparison(plan, task_dir=task_dir)
    assert "cosine_restarts" not in found.plan.families
    assert {"constant", "cyclic"} < set(found.plan.families)
    assert any(note.startswith("left out: cosine_restarts (two cycles") for note in found.notes)
    short = service.comparison(plan.model_copy(update={"epochs": 6}), task_dir=task_dir)
    assert {"cyclic", "onecycle"} < set(short.plan.families)
    assert short.notes == ()
    one_step = plan.model_copy(update={"epochs": 6, "batch_size": 34})
    found = service.comparison(one_step, device="cpu", task_dir=task_dir)
    assert "cyclic" in found.plan.families
    assert [note.partition(" (")[0] for note in found.notes] == ["left out: onecycle"]


def test_a_comparison_goes_on_with_its_own_families(url, task_dir) -> None:
    work_here(task_dir, families=("constant", "linear"), baseline="constant", trials=4)
    plan = StudyPlan(task="tiny.py:Noisy", trials=100)
    found = service.comparison(plan, name="mine", task_dir=task_dir)
    assert found.plan.families == ("constant", "linear")
    other = service.comparison(plan, name="other", task_dir=task_dir)
    assert len(other.plan.families) == 11
