"""Every tracker: a stored study read back from it, whatever happened on the way there."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from running import begin, command, wait_for
from tracked import stored_trials

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study
from clrsearch.service.confirming import begin_confirmation
from clrsearch.storage import StorageUrl, open_database
from clrsearch.trackers import Mirrored, connect, trial_run
from clrsearch.worker import WorkerSettings


def test_every_trial_is_there_with_its_curve_its_schedule_and_its_end(place, stored) -> None:
    file = stored("led")
    service.mirror("led", place.tracker, place.into)
    found, expected = place.read(), stored_trials(file)
    assert found.keys() == expected.keys() | {"study"}
    assert len(expected) == 52
    for key, trial in expected.items():
        seen = found[key]
        close = lambda numbers: pytest.approx(numbers, rel=1e-6)  # noqa: E731
        steps = [step for step, _ in trial.metric]
        assert [step for step, _ in seen.curves["error"]] == steps
        assert [value for _, value in seen.curves["error"]] == close([v for _, v in trial.metric])
        assert [value for _, value in seen.curves["lr"]] == close(trial.rates[: len(steps)])
        if trial.momenta is None:
            assert "momentum" not in seen.curves
        else:
            momenta = [value for _, value in seen.curves["momentum"]]
            assert momenta == close(trial.momenta[: len(steps)])
        if trial.end["metrics"]:
            assert seen.curves["close"] == [(steps[-1], close(trial.end["metrics"]["close"]))]
        assert seen.last("training seconds") == close(trial.end["seconds"])
        assert seen.state == trial.state
    assert {each.state for each in expected.values()} == {"complete", "pruned", "diverged"}
    shown = service.show("led").snapshot
    best = service.best("led")
    assert best.verdict.sentence in found["study"].texts["verdict.txt"]
    assert best.code.strip() in found["study"].texts["schedule.py"]
    assert "On fresh seeds" in found["study"].texts["study.md"]
    assert found["study"].last("trials done") == shown.done
    params = shown.records[3].params
    for name, value in params.items():
        seen = found["trial-0003"].params[name]
        assert (float(seen) if isinstance(value, float | int) else seen) == value


def test_twice_is_once(place, stored) -> None:
    stored("led")
    told = []
    service.mirror("led", place.tracker, place.into, on_write=told.append)
    first = place.read()
    service.mirror("led", place.tracker, place.into, on_write=told.append)
    assert place.read() == first
    assert [(each.trials, each.updated) for each in told] == [(52, 52), (52, 0)]


def test_a_trial_that_runs_is_continued_later(place, stored) -> None:
    file = stored("interrupted")
    url = StorageUrl(f"sqlite:///{file}")
    service.mirror("interrupted", place.tracker, place.into)
    with open_database(url) as database:
        study = Study.open(database, "interrupted")
        running = study.history.records()[-1]
        assert running.state == "running"
        assert running.epoch > 0
        begun = place.read().get("trial-0007")
        if place.tracker == "wandb":  # which writes no unfinished run offline
            assert begun is None
        else:
            assert begun.state == "running"
            assert [step for step, _ in begun.curves["error"]] == list(running.values)
        study.log.report(running.number, {running.epoch + 1: 0.5})
        end = {"error": "Traceback (most recent call last):\nValueError: no", "seconds": 1.5}
        study.log.fail(running.number, end)
    service.mirror("interrupted", place.tracker, place.into)
    seen = place.read()["trial-0007"]
    assert seen.state == "failed"
    steps = [*running.values, running.epoch + 1]
    assert [step for step, _ in seen.curves["error"]] == steps
    assert [step for step, _ in seen.curves["lr"]] == steps
    assert seen.last("error") == 0.5
    assert "ValueError: no" in seen.texts["error.txt"]


def test_what_was_broken_off_is_completed(place, stored) -> None:
    file = stored("led")
    with open_database(StorageUrl(f"sqlite:///{file}")) as database:
        study = Study.open(database, "led")
        tracker = connect(place.tracker, Mirrored(name="led", uuid=study.uuid), place.into)
        for record in study.history.records()[:3]:
            run = trial_run(study, record)
            broken = replace(run, points=run.points[:2], final={}, ended=None, state="running")
            tracker.update(broken if record.number == 2 else run)
    # the process ends here, without a close()
    service.mirror("led", place.tracker, place.into)
    expected = stored_trials(file)
    found = place.read()
    assert found.keys() == expected.keys() | {"study"}
    for key, trial in expected.items():
        for name in ("error", "lr"):
            steps = [step for step, _ in found[key].curves[name]]
            assert steps == [step for step, _ in trial.metric]


def test_killed_at_any_time(place, stored) -> None:
    file = stored("led")
    words = ["mirror", "led", "--to", place.tracker, "--into", place.into]
    with command(*words, cwd=place.folder) as killed:
        wait_for(lambda: killed.poll() is not None or begun(place))
        killed.send_signal(signal.SIGKILL)
    time.sleep(1)  # TensorBoard reads its files in the order of the seconds in their names
    service.mirror("led", place.tracker, place.into)
    found = place.read()
    for key, trial in stored_trials(file).items():
        assert [step for step, _ in found[key].curves["error"]] == [s for s, _ in trial.metric]
        assert found[key].state != "running"
    assert not list(place.folder.glob(".clrsearch*"))  # what was being written for wandb


def begun(place) -> bool:
    """Whether a few runs are there; what is being written cannot always be read."""
    with suppress(Exception):
        return len(place.read()) > 3
    return False


def test_another_study_of_the_same_name_is_another(place, stored, task_dir, tmp_path) -> None:
    stored("led")
    service.mirror("led", place.tracker, place.into)
    first = place.read()
    with open_database(StorageUrl(f"sqlite:///{tmp_path / 'led.db'}")) as database:
        study = Study.open(database, "led")
        tracker = connect(place.tracker, Mirrored(name="led", uuid="0" * 32), place.into)
        assert tracker.ended() == set()
        tracker.update(trial_run(study, study.trial(0)))
        tracker.close()
        again = connect(place.tracker, Mirrored(name="led", uuid=study.uuid), place.into)
        assert set(again.ended()) - {"study"} == first.keys() - {"study"}


def test_a_trial_that_has_reported_nothing_yet(place, stored) -> None:
    file = stored("interrupted")
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM trial_intermediate_values WHERE trial_id = 8")
    connection.close()
    service.mirror("interrupted", place.tracker, place.into)
    found = place.read()
    assert "trial-0006" in found
    assert "trial-0007" not in found or not found["trial-0007"].curves["error"]


def test_a_confirmation_that_grows(place, url, task_dir) -> None:
    plan = {"families": ("cyclic",), "task": "tiny.py:Noisy", "trials": 3}
    begin(url, task_dir, **plan, confirm=ConfirmPlan(top=1, seeds=1))
    work = partial(service.work, "mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    mirror = partial(service.mirror, "mine", place.tracker, place.into)
    work()
    ask_for(url, seeds=2)
    mirror()  # there is a verdict, but not the last one
    if place.tracker != "wandb":  # which writes no unfinished run offline
        assert place.read()["study"].state == "running"
        assert means(place) == {}
    work()
    mirror()
    assert place.read()["study"].state == "complete"
    first = means(place)
    assert first == pytest.approx(standings(), rel=1e-6)
    ask_for(url, seeds=3)
    mirror()
    if place.tracker != "wandb":
        assert place.read()["study"].state == "running"
    assert means(place) == first
    work()
    mirror()
    assert place.read()["study"].state == "complete"
    assert means(place) == pytest.approx(standings(), rel=1e-6)
    assert means(place) != first


def ask_for(url, *, seeds: int) -> None:
    """Add runs with further seeds to the confirmation of ``mine``."""
    with open_database(url) as database:
        study = Study.open(database, "mine")
        study.plan_confirmation(ConfirmPlan(top=1, seeds=seeds))
        begin_confirmation(study)


def means(place) -> dict[str, float]:
    """The last mean of each finalist that the tracker has."""
    seen = place.read()["study"]
    names = [name for name in seen.curves if name.startswith("mean ")]
    return {name.rpartition("/")[2]: seen.last(name) for name in names}


def standings() -> dict[str, float]:
    """The mean of each finalist, as the verdict has it."""
    verdict = service.show("mine").snapshot.verdict
    return {f"trial {each.trial}": each.mean for each in verdict.standings}


def test_names_that_trackio_would_take_for_one_another() -> None:
    names = ["ab", "a b", "a/b", "a.b", "ä b"]
    places = [connect("trackio", Mirrored(name=each, uuid="0" * 32)).place for each in names]
    assert [Path(each).name for each in places] == ["ab.db", *["a_b.db"] * 3, "ä_b.db"]
