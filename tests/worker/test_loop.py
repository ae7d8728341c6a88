"""A worker's life: exact budgets, retries, divergence, the same run anywhere."""

from __future__ import annotations

import pytest
import torch

from clrsearch.errors import StudyStopped
from clrsearch.schedules import trace
from clrsearch.search import Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import SequentialRun, TaskData, probe
from clrsearch.worker.loop import Worker, keeps_failing

CPU = torch.device("cpu")


@pytest.fixture
def begin(url, task_dir):
    """Make a study of one of the tests' tasks, and a worker for it."""
    with open_database(url, create=True) as database:

        def make(name="Tiny", *, study="mine", **keys):
            plan = StudyPlan(**({"task": f"tiny.py:{name}", "trials": 12} | keys))
            loaded = load_task(plan.task, options=plan.options, folder=task_dir)
            facts = probe(loaded, epochs=plan.epochs, device=CPU)
            made = Study.create(database, study, plan, facts, {"clrsearch": "0"})
            return made, Worker(made, loaded.task, CPU, name="w")

        yield make


def test_every_slot_is_used_up_once(begin) -> None:
    study, worker = begin()
    worker.work()
    counts = study.slots.counts()
    assert counts[SlotState.OPEN] == counts[SlotState.CLAIMED] == 0
    records = study.history.records()
    assert [record.slot for record in records] == list(range(12))
    assert [record.number for record in records] == list(range(12))
    assert [record.family for record in records] == ["cyclic"] * 9 + ["constant"] + ["cyclic"] * 2
    for record in records:
        assert sorted(record.values) == list(range(1, record.epoch + 1))
        if record.state == "complete":
            assert record.epoch == 4
            assert record.value == record.metrics["error"]
            assert record.seconds > 0


def test_smiths_settings_and_the_tasks_own_rate_come_first(begin) -> None:
    study, worker = begin()
    worker.work()
    records = study.history.records()
    assert [record.params["mode"] for record in records[:3]] == [
        "triangular",
        "triangular2",
        "exp_range",
    ]
    assert records[9].params == {"lr": 0.02}


def test_a_trials_values_are_those_of_its_run_alone(begin, task_dir) -> None:
    study, worker = begin(seed=5, pruner="none")
    worker.work()
    loaded = load_task("tiny.py:Tiny", folder=task_dir)
    data = TaskData(loaded.task, 8, CPU)
    for record in study.history.records():
        schedule = study.space.build(record.family, record.params)
        run = SequentialRun(loaded.task, study.facts, data, trace(schedule, 16), seed=5, device=CPU)
        assert record.values == {n: run.next_epoch().metrics["error"] for n in range(1, 5)}


def test_the_same_plan_and_seed_give_the_same_study(begin) -> None:
    first, worker = begin(study="first", trials=25)
    worker.work()
    second, worker = begin(study="second", trials=25)
    worker.work()
    other, worker = begin(study="other", trials=25, seed=1)
    worker.work()

    def content(study):
        return [(r.family, r.params, r.state, r.values) for r in study.history.records()]

    assert content(first) == content(second)
    assert content(first) != content(other)


def test_a_diverged_trial_is_told_as_pruned_and_not_tried_again(begin) -> None:
    study, worker = begin("Explodes", trials=2)
    worker.work()
    assert study.slots.counts() == {SlotState.DIVERGED: 2}
    for record in study.history.records():
        assert (record.state, record.diverged, record.epoch) == ("pruned", True, 1)


def test_three_failures_in_a_row_stop_the_study(begin) -> None:
    study, worker = begin("FailsLater")
    with pytest.raises(StudyStopped) as caught:
        worker.work()
    assert 'raise KeyError("no such column")' in caught.value.traceback
    records = study.history.records()
    assert [record.state for record in records] == ["failed"] * 3
    assert [record.slot for record in records] == [0, 0, 1]
    assert records[0].params == records[1].params
    counts = study.slots.counts()
    assert (counts[SlotState.FAILED], counts[SlotState.OPEN]) == (1, 11)


def test_without_retries_each_failure_uses_its_slot_up(begin) -> None:
    study, worker = begin("FailsLater", retries=0, trials=2)
    worker.work()
    assert study.slots.counts() == {SlotState.FAILED: 2}


def test_a_stopped_study_lets_no_worker_in(begin) -> None:
    study, worker = begin()
    study.stop("Traceback: KeyError")
    with pytest.raises(StudyStopped):
        worker.work()
    study.stop(None)
    worker.work()
    assert study.slots.counts()[SlotState.OPEN] == 0


def test_failures_among_complete_trials_stop_nothing(begin) -> None:
    study, worker = begin(trials=1)
    worker.work()
    complete = study.history.records()
    failing, worker = begin("FailsLater", study="failing", retries=0, trials=3)
    with pytest.raises(StudyStopped):
        worker.work()
    failed = failing.history.records()
    assert keeps_failing(failed)
    assert not keeps_failing(failed[:2])
    assert not keeps_failing([*complete, *failed])


def test_a_trial_that_was_begun_is_gone_on_with_under_its_number(begin) -> None:
    study, worker = begin(trials=1)
    slot = study.slots.claim("gone")
    params = study.space.first("cyclic")[0]
    number = study.begin(slot, params, {"worker": "gone", "device": "cpu"})
    study.report(number, 1, 99.0)
    study.slots.hand_back(slot)
    worker.work()
    (record,) = study.history.records()
    assert (record.number, record.state, record.epoch) == (number, "complete", 4)
    assert record.values[1] != 99.0
    assert study.slots.counts() == {SlotState.COMPLETE: 1}


def test_a_trial_that_was_told_just_before_its_worker_died_is_not_run_again(begin) -> None:
    study, worker = begin(trials=1)
    slot = study.slots.claim("gone")
    number = study.begin(slot, study.space.first("cyclic")[0], {"worker": "gone", "device": "cpu"})
    study.report(number, 1, 0.5)
    study.complete(number, 0.5, {})
    study.slots.release("gone")
    worker.work()
    assert len(study.history.records()) == 1
    assert study.slots.counts() == {SlotState.COMPLETE: 1}


def test_the_worst_are_pruned_but_never_the_first_or_the_baseline(begin) -> None:
    study, worker = begin(trials=40, epochs=12)
    worker.work()
    records = study.history.records()
    pruned = [record for record in records if record.state == "pruned" and not record.diverged]
    assert pruned
    assert all(4 <= record.epoch < 12 for record in pruned)
    assert all(record.family == "cyclic" and record.slot >= 3 for record in pruned)


def test_rates_and_momenta_at_epoch_ends_are_stored(begin, url) -> None:
    import optuna

    study, worker = begin("Grouped", trials=1)
    worker.work()
    stored = optuna.load_study(study_name="mine", storage=url.reveal()).trials[0].user_attrs
    (record,) = study.history.records()
    expected = trace(study.space.build("cyclic", record.params), 16, study.facts.ratios)
    assert stored["rates"] == expected.rates[:, 3::4].tolist()
    assert expected.momenta is not None
    assert stored["momenta"] == expected.momenta[:, 3::4].tolist()


def test_it_waits_for_the_slot_of_a_worker_that_went_silent(begin) -> None:
    study, worker = begin(trials=2)
    lost = study.slots.claim("silent")
    soon = "UPDATE clrsearch_slots SET expires = (julianday('now') - 2440587.5) * 86400 + 1.5"
    with study.database.engine.begin() as connection:
        connection.exec_driver_sql(f"{soon} WHERE number = 0")
    worker.work()
    assert study.slots.counts() == {SlotState.COMPLETE: 2}
    assert [record.slot for record in study.history.records()] == [1, 0]
    assert not study.slots.renew(lost)
