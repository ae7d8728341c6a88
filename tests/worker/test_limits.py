"""Workers that leave after so many trials or minutes, and workers that stay for trials to come."""

from __future__ import annotations

import threading
import time

import pytest
import running
from running import ALONE, PATIENCE

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.search import ConfirmPlan, Study
from clrsearch.storage import SlotState, open_database
from clrsearch.training import making
from clrsearch.worker import WorkerSettings
from clrsearch.worker.signals import Interruption


def begin(url, task_dir, *, task="Tiny", **keys) -> None:
    running.begin(url, task_dir, task=f"tiny.py:{task}", **keys)


def counts(url):
    with open_database(url) as database:
        return [dict(each.slots.counts()) for each in Study.open(database, "mine").stages()]


def grow(url, trials) -> None:
    with open_database(url) as database:
        Study.open(database, "mine").grow(trials)


def test_without_limits_it_stays() -> None:
    interruption = Interruption()
    interruption.count()
    assert not interruption.asked


def test_it_leaves_when_its_time_is_up() -> None:
    interruption = Interruption(seconds=0.2)
    assert not interruption.asked
    time.sleep(0.25)
    assert interruption.asked


def test_a_deadline_that_is_lifted_is_forgotten() -> None:
    interruption = Interruption()
    interruption.end_in(0.0)
    assert interruption.asked
    interruption.end_in(None)
    assert not interruption.asked


def test_it_leaves_when_it_has_ended_so_many_trials() -> None:
    interruption = Interruption(trials=2)
    interruption.count()
    assert not interruption.asked
    interruption.count()
    assert interruption.asked


def test_so_many_trials_are_ended_and_the_others_are_left_open(url, task_dir) -> None:
    begin(url, task_dir)
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=3))
    assert counts(url) == [{SlotState.COMPLETE: 3, SlotState.OPEN: 1}]
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=3))
    assert counts(url) == [{SlotState.COMPLETE: 4}]


def test_failed_trials_count_as_well(url, task_dir) -> None:
    begin(url, task_dir, task="FailsLater", trials=2)
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=1))
    (record,) = service.show("mine").snapshot.records
    assert record.state == "failed"
    assert counts(url) == [{SlotState.OPEN: 2}]


def test_who_ends_the_last_trial_it_may_does_not_begin_the_confirmation(url, task_dir) -> None:
    begin(url, task_dir, trials=2, confirm=ConfirmPlan(top=1, seeds=2))
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=2))
    assert counts(url) == [{SlotState.COMPLETE: 2}]
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=1))
    search, confirmation = counts(url)
    assert search == {SlotState.COMPLETE: 2}
    assert confirmation[SlotState.COMPLETE] == 1
    assert confirmation[SlotState.OPEN] >= 1


def test_when_its_minutes_are_over_it_saves_and_hands_its_trial_back(url, task_dir) -> None:
    begin(url, task_dir, task="Paced", trials=1)  # 1.6 seconds
    service.work(
        "mine",
        settings=WorkerSettings(task_dir=task_dir, max_minutes=1.0 / 60, checkpoint_seconds=1000),
    )
    assert counts(url) == [{SlotState.OPEN: 1}]
    (record,) = service.show("mine").snapshot.records
    assert record.state == "running"
    assert list(url.file.with_name("studies-checkpoints").glob("*/trial-0.pt"))
    service.work("mine", settings=WorkerSettings(task_dir=task_dir))
    (record,) = service.show("mine").snapshot.records
    assert (record.number, record.state, record.drift) == (0, "complete", 0.0)
    assert service.replay("mine", 0, device="cpu", task_dir=task_dir).matches


def test_the_commands_options_are_those_limits(url, task_dir, clrsearch, monkeypatch) -> None:
    begin(url, task_dir)
    monkeypatch.chdir(task_dir)
    limits = ("--max-trials", "1", "--max-minutes", "5", "--idle-wait", "1")
    code, out, errors = clrsearch("worker", "mine", *limits)
    assert (code, errors) == (0, "")
    assert len(out.splitlines()) == 1
    assert counts(url) == [{SlotState.COMPLETE: 1, SlotState.OPEN: 3}]


@pytest.mark.parametrize("name", ["max_minutes", "max_trials", "idle_wait"])
def test_a_limit_of_nothing_is_refused(name) -> None:
    with pytest.raises(PlanError, match=f"{name} must be above 0, not 0"):
        WorkerSettings(**{name: 0})


def test_who_waits_takes_what_is_added_and_then_leaves(url, task_dir, monkeypatch) -> None:
    monkeypatch.setattr(service.working, "IDLE_LOOK_SECONDS", 0.05)
    begin(url, task_dir, trials=1)
    ended = []

    def add(record, study) -> None:
        ended.append(record.number)
        if len(ended) == 1:
            threading.Timer(0.5, grow, [url, 3]).start()

    began = time.monotonic()
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, idle_wait=3.0), on_end=add)
    assert ended == [0, 1, 2]
    assert time.monotonic() - began >= 3.5
    assert counts(url) == [{SlotState.COMPLETE: 3}]


def test_who_waits_reads_the_data_once_and_the_study_anew(url, task_dir, monkeypatch) -> None:
    monkeypatch.setattr(service.working, "IDLE_LOOK_SECONDS", 0.05)
    read = []
    data = making.TaskData
    monkeypatch.setattr(
        making, "TaskData", lambda *given, **named: read.append(1) or data(*given, **named)
    )
    begin(url, task_dir, trials=1)
    budgets = []

    def add(record, study) -> None:
        budgets.append(study.plan.trials)
        threading.Timer(0.3, grow, [url, record.number + 2]).start()

    service.work(
        "mine",
        settings=WorkerSettings(task_dir=task_dir, idle_wait=PATIENCE, max_trials=3),
        on_end=add,
    )
    assert read == [1]
    assert budgets == [1, 2, 3]


def test_who_waits_takes_over_what_another_lost(url, task_dir, monkeypatch) -> None:
    monkeypatch.setattr(service.working, "IDLE_LOOK_SECONDS", 0.05)
    monkeypatch.setattr("clrsearch.worker.claims.LEASE_SECONDS", 0.5)
    begin(url, task_dir, trials=2)
    soon = "UPDATE clrsearch_slots SET expires = 1.0 WHERE number = 1"

    def lose(record, study) -> None:
        if record.slot:
            return
        study.slots.claim("gone")  # in good hands as far as anybody sees, for a moment

        def expire() -> None:
            with open_database(url) as database, database.engine.begin() as connection:
                connection.exec_driver_sql(soon)

        threading.Timer(1.5, expire).start()

    service.work(
        "mine",
        settings=WorkerSettings(task_dir=task_dir, idle_wait=PATIENCE, max_trials=2),
        on_end=lose,
    )
    assert counts(url) == [{SlotState.COMPLETE: 2}]


def test_a_confirmation_that_is_no_longer_wanted_is_not_waited_for(url, task_dir) -> None:
    begin(url, task_dir, trials=2, confirm=ConfirmPlan(top=1, seeds=2))
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, max_trials=3))
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.confirmation().slots.counts()[SlotState.OPEN] > 0
        study.plan_confirmation(ALONE)
    began = time.monotonic()
    service.work("mine", settings=WorkerSettings(task_dir=task_dir, idle_wait=1.0))
    assert time.monotonic() - began < PATIENCE / 2


def test_minutes_end_a_wait_as_well(url, task_dir) -> None:
    begin(url, task_dir, trials=1)
    began = time.monotonic()
    service.work(
        "mine", settings=WorkerSettings(task_dir=task_dir, idle_wait=PATIENCE, max_minutes=2.0 / 60)
    )
    assert time.monotonic() - began < PATIENCE / 2
    assert counts(url) == [{SlotState.COMPLETE: 1}]
