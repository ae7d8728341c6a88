"""A worker's life: exact budgets, retries, divergence, the same run anywhere."""

from __future__ import annotations

import gc
import itertools
import shutil
import threading
import weakref
from contextlib import suppress
from types import MappingProxyType

import optuna
import pytest
import sqlalchemy as sa
import torch
from identities import writer

from clrsearch.errors import DeviceFailed, FailsHere, StudyStopped, TaskError, TaskRaised
from clrsearch.schedules import trace
from clrsearch.search import PRUNERS, Study, StudyPlan
from clrsearch.storage import SlotState, engine, open_database
from clrsearch.storage.slots import _slots as table
from clrsearch.tasks import load_task
from clrsearch.training import (
    Checkpoints,
    Identity,
    Interrupted,
    SequentialRun,
    TaskData,
    probe,
    run_maker,
)
from clrsearch.worker import WorkerSettings, attempt, claims
from clrsearch.worker.attempt import Attempt
from clrsearch.worker.lease import Lease
from clrsearch.worker.loop import Worker

CPU = torch.device("cpu")
LOOP = {"task": "loops.py:train", "epochs": 4, "metric": "error", "direction": "minimize"}


@pytest.fixture
def begin(url, task_dir, tmp_path):
    """Make a study of one of the tests' tasks, and a worker for it."""
    with open_database(url, create=True) as database:

        def make(name="Tiny", *, study="mine", worker="w", **keys):
            plan = StudyPlan(
                **({"families": ("cyclic",), "task": f"tiny.py:{name}", "trials": 12} | keys)
            )
            loaded = load_task(plan.task, options=plan.options, folder=task_dir)
            facts = probe(
                loaded,
                epochs=plan.epochs,
                metric=plan.metric,
                direction=plan.direction,
                device=CPU,
            )
            made = Study.create(database, study, plan, facts, {"clrsearch": "0"})
            make_run, checkpoints = run_maker(loaded.task, facts, CPU), Checkpoints(tmp_path)
            settings = WorkerSettings()
            given = {"name": worker, "settings": settings, "on_note": (notes := []).append}
            worker = Worker(made, make_run, CPU, checkpoints, **given)
            worker.notes = notes
            return made, worker

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
    assert list(records[0].params) == [
        *("mode", "max_lr", "base_ratio", "cycles"),
        *("cycle_momentum", "base_momentum", "max_momentum"),
    ]
    for record in records:
        assert list(record.values) == list(range(1, record.epoch + 1))
        if record.state == "complete":
            assert record.epoch == 4
            assert record.value == record.metrics["error"]
            assert record.seconds > 0


def test_smiths_settings_and_the_tasks_own_rate_come_first(begin) -> None:
    study, worker = begin()
    worker.work()
    records = study.history.records()
    # in 4 epochs there is one cycle, with which triangular2 is triangular
    assert [record.params["mode"] for record in records[:2]] == ["triangular", "exp_range"]
    assert records[9].params == {"lr": 0.02}


def test_a_trials_values_are_those_of_its_run_alone(begin, task_dir) -> None:
    study, worker = begin(seed=5, pruner="none")
    worker.work()
    loaded = load_task("tiny.py:Tiny", folder=task_dir)
    data = TaskData(loaded.task, 8, CPU)
    for record in study.history.records():
        schedule = study.space.build(record.family, record.params)
        run = SequentialRun(
            loaded.task,
            study.facts,
            data,
            trace(schedule, 16),
            seed=5,
            seed_index=record.seed_index,
            device=CPU,
        )
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


def test_a_surrogate_that_fails_says_so_once_and_stops_nothing(begin) -> None:
    study, worker = begin("Explodes", trials=12)
    worker.work()
    assert study.slots.counts() == {SlotState.DIVERGED: 12}
    assert worker.notes == [
        "schedules are drawn at random for now: fewer than 3 trials are complete"
    ]


def test_a_slot_for_any_family_is_taken_over_with_the_family_that_it_got(begin) -> None:
    study, worker = begin(families=("cyclic", "linear", "cosine"), allocation="led", trials=5)
    slots = [study.slots.claim(name) for name in ("gone", "too")]
    assert [slot.family for slot in slots] == ["cyclic", "any"]
    params = {"lr": 0.02, "warmup_share": 0.1}
    number = study.begin(slots[1], params, {"worker": "gone", "device": "cpu"}, "linear")
    study.slots.bind(slots[1], number)
    for slot in slots:
        study.slots.hand_back(slot)
    worker.work()
    records = study.history.records()
    assert len(records) == 5
    (taken,) = [record for record in records if record.slot == 1]
    assert (taken.number, taken.family, taken.params) == (number, "linear", params)
    assert taken.state == "complete"
    assert [record.seed_index for record in sorted(records, key=lambda each: each.slot)] == [
        *(0, 0, 500_001, 500_001),
        0,
    ]


def test_a_worker_leaves_after_two_failures_and_the_next_ones_third_stops_the_study(begin) -> None:
    study, worker = begin("FailsLater", worker="here:1:a")
    said = r"^2 trials in a row failed in this process, the last with KeyError: 'no such"
    with pytest.raises(FailsHere, match=said):
        worker.work()
    assert study.stopped is None
    assert study.slots.counts() == {SlotState.OPEN: 12}
    _, worker = begin("FailsLater", worker="here:1:b")
    with pytest.raises(StudyStopped) as caught:
        worker.work()
    assert 'raise KeyError("no such column")' in caught.value.traceback
    records = study.history.records()
    assert [record.state for record in records] == ["failed"] * 3
    assert [record.slot for record in records] == [0, 1, 2]  # each is tried by others first
    assert study.slots.counts() == {SlotState.OPEN: 12}


@pytest.mark.parametrize("name", ["Tiny", "FailsLater"])
def test_a_trials_model_is_freed_before_the_next_trial(begin, monkeypatch, name) -> None:
    """Without the garbage collector, which comes too late for a GPU."""
    _, worker = begin(name, trials=3, pruner="none", retries=0)
    make, models = worker._make_run, []

    def made(*given, **keys):
        assert [model() for model in models] == [None] * len(models)
        run = make(*given, **keys)
        models.append(weakref.ref(run._learner.model))
        return run

    worker._make_run = made
    gc.disable()
    try:
        with suppress(FailsHere, StudyStopped):
            worker.work()
    finally:
        gc.enable()
    assert len(models) >= 2
    assert [model() for model in models] == [None] * len(models)


def test_a_failed_device_hands_the_trial_back_and_lets_the_worker_leave(begin) -> None:
    study, worker = begin("Tiny", worker="here:1:a", trials=2)
    make = worker._make_run

    def fails(*given, **keys):
        raise TaskRaised("RuntimeError while training: CUDA error: x", "") from RuntimeError(
            "CUDA error: x"
        )

    worker._make_run = fails
    with pytest.raises(DeviceFailed, match="CUDA error: x"):
        worker.work()
    (record,) = study.history.records()
    assert record.state == "running"
    assert study.slots.counts() == {SlotState.OPEN: 2}
    assert study.departures() == {
        "here:1:a": "the device failed: RuntimeError while training: CUDA error: x"
    }
    _, other = begin("Tiny", worker="there:1:a", trials=2)
    other._make_run = make
    assert other.work()
    assert [(each.number, each.state) for each in study.history.records()] == [
        (0, "complete"),
        (1, "complete"),
    ]


def test_a_trial_that_is_interrupted_again_and_again_before_a_checkpoint_fails(begin) -> None:
    for name in "abcde":
        study, worker = begin("Tiny", trials=1, worker=name)

        def leaves(*given, worker=worker, **keys):
            worker._interruption.ask()
            raise Interrupted

        worker._make_run = leaves
        assert not worker.work()
    assert begin("Tiny", trials=1, worker="f")[1].work()
    (record,) = study.history.records()
    assert record.error == (
        "5 workers were lost while running this trial, and none saved a new checkpoint: "
        "5 had to leave before the next checkpoint"
    )


def test_a_sick_machine_does_not_stop_those_that_work_elsewhere(begin) -> None:
    study, worker = begin("FailsLater", worker="sick:1:a")
    healthy = study.slots.claim("healthy:1:a")
    with pytest.raises(FailsHere):
        worker.work()
    _, worker = begin("FailsLater", worker="sick:1:b")
    with pytest.raises(FailsHere):
        worker.work()
    assert len(study.history.records()) == 4
    assert study.stopped is None
    study.slots.hand_back(healthy)
    _, worker = begin("FailsLater", worker="sick:1:c")
    with pytest.raises(StudyStopped):
        worker.work()


def test_failures_between_successes_let_a_worker_stay(begin) -> None:
    study, worker = begin(trials=5, pruner="none", retries=0)
    make, made = worker._make_run, []

    def every_other(*given, **keys):
        made.append(given)
        if len(made) % 2:
            raise TaskError("bad luck")
        return make(*given, **keys)

    worker._make_run = every_other
    assert worker.work()
    assert study.slots.counts() == {SlotState.FAILED: 3, SlotState.COMPLETE: 2}


def test_without_retries_each_failure_uses_its_slot_up(begin) -> None:
    study, worker = begin("FailsLater", retries=0, trials=2)
    worker.work()
    assert study.slots.counts() == {SlotState.FAILED: 2}


@pytest.mark.parametrize("final", ["false", "true"])
def test_a_connection_that_breaks_within_a_failure_neither_loses_nor_adds_a_retry(
    far_url, cable, task_dir, tmp_path, monkeypatch, final
) -> None:
    """Before each statement from the one that stores the failure to the one after the slot's."""
    # what the server does not hear of holds its locks no longer than that
    impatient = "SET idle_in_transaction_session_timeout = '1s'"
    monkeypatch.setitem(engine._SESSION, "postgresql", (impatient,))
    loaded = load_task("tiny.py:FailsLater", folder=task_dir)
    plan = StudyPlan(families=("cyclic",), task="tiny.py:FailsLater", trials=1)
    facts = probe(loaded, device=CPU)
    make_run = run_maker(loaded.task, facts, CPU)
    with open_database(far_url, create=True) as database:
        seen: list[str] = []

        def execute(connection, cursor, statement, parameters, *_) -> None:
            if threading.current_thread() is not threading.main_thread():
                return  # a lease's
            if seen or f'"final": {final}' in str(parameters):
                seen.append(statement)
                if len(seen) == breaks_at:
                    cable.cut()

        sa.event.listen(database.engine, "before_cursor_execute", execute)
        for breaks_at in itertools.count(1):
            study = Study.create(database, f"study {breaks_at}", plan, facts, {"clrsearch": "0"})
            seen.clear()
            Worker(
                study,
                make_run,
                CPU,
                Checkpoints(tmp_path),
                name="w",
                settings=WorkerSettings(),
                on_wait=lambda error: cable.join(),
            ).work()
            ends = [(each.state, each.final) for each in study.history.records()]
            assert ends == [("failed", False), ("failed", True)], breaks_at
            assert study.slots.counts() == {SlotState.FAILED: 1}
            if any("UPDATE clrsearch_slots" in each for each in seen[: breaks_at - 1]):
                break


def test_a_failed_trial_leaves_no_checkpoint(begin, tmp_path) -> None:
    _, worker = begin("FailsLater", trials=1)
    worker._checkpoint_seconds = 0.0
    worker.work()
    assert list(tmp_path.glob("*.pt")) == []


def test_the_curves_of_a_very_long_trial_are_not_stored(begin, url) -> None:
    import optuna

    study, worker = begin("Grouped", trials=1, epochs=2000)
    worker._study.log.report = lambda *_: False  # enough: it has been born
    slots = iter([study.slots.claim("w"), None])
    worker._claims.next = lambda **_: next(slots)
    worker.work()
    stored = optuna.load_study(study_name="mine", storage=url.reveal()).trials[0].user_attrs
    assert stored.keys() - {"lost"} == {"slot", "family", "seed_index", "worker", "device"}


def test_a_stopped_study_lets_no_worker_in(begin) -> None:
    study, worker = begin()
    study.stop("Traceback: KeyError")
    with pytest.raises(StudyStopped):
        worker.work()
    study.stop(None)
    worker.work()
    assert study.slots.counts()[SlotState.OPEN] == 0


def undisturbed(study, task_dir, record, name="Noisy"):
    """The values of a trial's parameters, run by hand from beginning to end."""
    loaded = load_task(f"tiny.py:{name}", folder=task_dir)
    data = TaskData(loaded.task, study.facts.batch_size, CPU)
    played = study.trace(record.family, record.params)
    run = SequentialRun(loaded.task, study.facts, data, played, seed=study.plan.seed, device=CPU)
    metric = study.facts.metric
    return {n: run.next_epoch().metrics[metric] for n in range(1, study.facts.epochs + 1)}


def begin_and_leave(study, values) -> int:
    """A trial of the first slot that a worker began, reported on, and left; its number."""
    slot = study.slots.claim("gone")
    params = study.space.seed_points("cyclic")[0]
    number = study.begin(slot, params, {"worker": "gone", "device": "cuda"})
    for epoch, value in values.items():
        study.log.report(number, {epoch: value})
    study.slots.release("gone")
    return number


def identity(study, number, changes=MappingProxyType({})) -> Identity:
    """That of the checkpoints which :func:`begin_and_leave`'s worker could have left."""
    record = study.trial(number)
    given = {"study": study.uuid, "family": record.family, "params": record.params, "attempt": 1}
    return Identity(**({"trial": number} | given | dict(changes)))


def begin_and_save(study, task_dir, folder, changes=MappingProxyType({})):
    """As :func:`begin_and_leave`, with a checkpoint of the first epoch: what comes out, the run."""
    number = begin_and_leave(study, {})
    expected = undisturbed(study, task_dir, study.trial(number))
    task = load_task("tiny.py:Noisy", folder=task_dir).task
    played = study.trace("cyclic", study.trial(number).params)
    data = TaskData(task, study.facts.batch_size, CPU)
    run = SequentialRun(task, study.facts, data, played, seed=0, device=CPU)
    run.next_epoch()
    study.log.report(number, {1: expected[1]})
    checkpoints = Checkpoints(folder)
    name = identity(study, number, changes)
    checkpoints.save(name, run.state(), confirm=lambda: True)
    if name.trial != number:
        checkpoints.path(name.trial).rename(checkpoints.path(number))
    return number, expected, run


def require_begun_again(study, worker, number, expected, folder, says) -> None:
    """The trial is complete as if undisturbed, it was told once why, and nothing is left."""
    (record,) = study.history.records()
    assert (record.number, record.state, record.drift) == (number, "complete", 0.0)
    assert record.values == expected
    assert record.seconds < 1000.0
    (note,) = worker.notes
    path = folder / f"trial-{number}.pt"
    assert note.startswith(f"trial {number} starts over: its checkpoint {path} cannot be used: ")
    assert says in note
    assert list(folder.glob("*.pt")) == []


def test_a_trial_that_was_begun_is_gone_on_with_under_its_number(begin, task_dir) -> None:
    study, worker = begin("Noisy", trials=1)
    number = begin_and_leave(study, {})
    expected = undisturbed(study, task_dir, study.trial(number))
    study.log.report(number, {1: expected[1]})
    worker.work()
    (record,) = study.history.records()
    assert (record.number, record.state) == (number, "complete")
    assert (record.worker, record.device, record.drift) == ("w", "cpu", 0.0)
    assert record.values == expected
    assert study.slots.counts() == {SlotState.COMPLETE: 1}


def test_stored_values_stay_and_a_repeated_epoch_is_compared_with_them(begin, task_dir) -> None:
    study, worker = begin("Noisy", trials=1)
    number = begin_and_leave(study, {})
    expected = undisturbed(study, task_dir, study.trial(number))
    study.log.report(number, {1: expected[1] + 0.5})
    worker.work()
    (record,) = study.history.records()
    assert record.values == expected | {1: expected[1] + 0.5}
    assert record.drift == pytest.approx(0.5)


def test_a_checkpoint_is_what_is_gone_on_from(begin, task_dir, tmp_path) -> None:
    study, worker = begin("Noisy", trials=1)
    number = begin_and_leave(study, {})
    expected = undisturbed(study, task_dir, study.trial(number))
    for epoch in (1, 2):
        study.log.report(number, {epoch: expected[epoch]})
    task = load_task("tiny.py:Noisy", folder=task_dir).task
    played = study.trace("cyclic", study.trial(number).params)
    data = TaskData(task, study.facts.batch_size, CPU)
    run = SequentialRun(task, study.facts, data, played, seed=0, device=CPU)
    run.next_epoch(), run.next_epoch()
    run.seconds = 1000.0
    Checkpoints(tmp_path).save(identity(study, number), run.state(), confirm=lambda: True)
    worker.work()
    (record,) = study.history.records()
    assert record.values == expected
    assert record.seconds > 1000.0
    assert list(tmp_path.glob("*.pt")) == []
    assert worker.notes == []


def spoil_by(change):
    """A way to spoil a file: the function that makes its bytes others."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def torn_inside(state) -> dict:
    """Every entry of a state is another type's."""
    return {name: [name] for name in state}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_by(lambda whole: whole[:2000]), "it is damaged (its checksum"),
        (spoil_by(lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])), "it is damaged (its chec"),
        (spoil_by(lambda whole: b""), "it is damaged or was written by an earlier version"),
        (lambda path: (path.unlink(), path.mkdir()), "it cannot be read: Is a directory"),
        (lambda path: torch.save({"epoch": 1}, path), "or was written by an earlier version"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_trial_begins_again(
    begin, task_dir, tmp_path, spoil, says
) -> None:
    study, worker = begin("Noisy", trials=1)
    number, expected, _ = begin_and_save(study, task_dir, tmp_path)
    spoil(tmp_path / f"trial-{number}.pt")
    worker._checkpoint_seconds = 0.0
    worker.work()
    require_begun_again(study, worker, number, expected, tmp_path, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"study": "another"}, "it belongs to another trial (study: another)"),
        ({"trial": 7}, "it belongs to another trial (trial: 7)"),
        ({"family": "step"}, "it belongs to another trial (family: step)"),
        ({"params": {}}, "it belongs to another trial (params: {})"),
        ({"attempt": 5}, "it is from attempt 5, but this is attempt 2"),
    ],
)
def test_another_trials_checkpoint_is_told_and_the_trial_begins_again(
    begin, task_dir, tmp_path, changes, says
) -> None:
    study, worker = begin("Noisy", trials=1)
    number, expected, _ = begin_and_save(study, task_dir, tmp_path, changes)
    worker.work()
    require_begun_again(study, worker, number, expected, tmp_path, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (torn_inside, "it does not fit: TypeError"),
        (lambda state: state | {"model": {}}, "it does not fit: RuntimeError"),
        (lambda state: state | {"step": 99}, "it does not fit: ValueError"),
        (lambda state: {}, "it does not fit: KeyError"),
        (lambda state: state | {"epoch": 3}, "ahead of the values in the database"),
    ],
)
def test_a_state_that_does_not_fit_is_told_and_the_trial_begins_again(
    begin, task_dir, tmp_path, change, says
) -> None:
    study, worker = begin("Noisy", trials=1)
    number, expected, run = begin_and_save(study, task_dir, tmp_path)
    name = identity(study, number)
    Checkpoints(tmp_path).save(name, change(run.state()), confirm=lambda: True)
    worker.work()
    require_begun_again(study, worker, number, expected, tmp_path, says)


def test_a_loop_whose_parts_do_not_fit_begins_again(begin, task_dir, tmp_path) -> None:
    study, worker = begin(**LOOP, trials=1)
    number = begin_and_leave(study, {1: 0.5})
    state = {"epoch": 1, "seconds": 1.0, "objects": {"model": {}, "optimizer": {}}}
    Checkpoints(tmp_path).save(identity(study, number), state, confirm=lambda: True)
    worker.work()
    (record,) = study.history.records()
    assert (record.number, record.state, len(record.values)) == (number, "complete", 4)
    (note,) = worker.notes
    path = tmp_path / f"trial-{number}.pt"
    assert note.startswith(f"trial {number} starts over: its checkpoint {path} cannot be used: ")
    assert "it does not fit: RuntimeError: Error(s) in loading state_dict" in note


def test_a_checkpoint_folder_that_is_removed_under_a_worker_is_made_anew(begin, tmp_path) -> None:
    study, worker = begin(trials=3, pruner="none")
    folder = tmp_path / "gone"
    worker._checkpoints.folder = folder
    worker._checkpoint_seconds = 0.0
    report = study.log.report

    def remove_and_report(trial, values):
        shutil.rmtree(folder, ignore_errors=True)
        return report(trial, values)

    study.log.report = remove_and_report
    worker.work()
    assert study.slots.counts() == {SlotState.COMPLETE: 3}
    assert worker.notes == []


class Clock:
    """A clock that only tests move: the ``time`` of the module that reads it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("apart", "takes", "epochs"),
    [
        (0.0, 0.0, [*range(1, 24)]),
        (2.0, 0.0, [*range(2, 24, 2)]),
        (0.0, 0.125, [1, 4, 7, 10, 13, 16, 19, 22]),  # 2.5 seconds of training to 0.125 of saving
        (0.0, 0.25, [1, 6, 11, 16, 21]),
        (8.0, 0.25, [8, 16]),
        (8.0, 1.0, [8]),
        (1000.0, 0.0, []),
    ],
)
def test_checkpoints_are_written_so_far_apart(
    begin, tmp_path, monkeypatch, apart, takes, epochs
) -> None:
    """In seconds, and in times of what the last one took; each epoch takes a second here."""
    clock, saved = Clock(), []
    monkeypatch.setattr(attempt, "time", clock)
    finish, get, save = Attempt._finish, SequentialRun.state, Checkpoints.save

    def trained(self, epoch):
        clock.now += 1.0
        return finish(self, epoch)

    def gathered(self):
        clock.now += takes / 2
        return get(self)

    def noted(self, whose, state, *, confirm):
        clock.now += takes / 2
        saved.append((whose.trial, state["epoch"]))
        return save(self, whose, state, confirm=confirm)

    monkeypatch.setattr(Attempt, "_finish", trained)
    monkeypatch.setattr(SequentialRun, "state", gathered)
    monkeypatch.setattr(Checkpoints, "save", noted)
    _, worker = begin(trials=2, epochs=24, pruner="none")
    worker._checkpoint_seconds = apart
    worker.work()
    assert saved == [(trial, epoch) for trial in (0, 1) for epoch in epochs]
    assert list(tmp_path.glob("*.pt")) == []


def test_five_losses_without_a_checkpoint_fail_the_trial(begin) -> None:
    study, worker = begin(trials=2, retries=3)
    begin_and_leave(study, {})
    for _ in range(4):
        study.slots.claim("gone")
        study.slots.release("gone")
    worker.work()
    lost, other = study.history.records()
    assert (lost.state, other.state) == ("failed", "complete")
    assert lost.error == (
        "5 workers were lost while running this trial, and none saved a new checkpoint: how they "
        "ended is unknown"
    )
    assert study.slots.counts() == {SlotState.FAILED: 1, SlotState.COMPLETE: 1}


@pytest.mark.parametrize("end", ["complete", "failed"])
def test_what_was_killed_between_the_trials_end_and_the_slots_is_tidied(
    begin, tmp_path, end
) -> None:
    study, worker = begin(trials=1, retries=0)
    slot = study.slots.claim("gone")
    params = study.space.seed_points("cyclic")[0]
    number = study.begin(slot, params, {"worker": "gone", "device": "cpu"})
    study.slots.bind(slot, number)
    Checkpoints(tmp_path).save(writer(number), {}, confirm=lambda: True)
    Checkpoints(tmp_path).save(
        writer(7), {}, confirm=lambda: True
    )  # of a trial whose slot has ended
    if end == "complete":
        study.log.complete(number, 0.5, {})
    else:
        study.log.fail(number, {"error": "KeyError", "final": True})
    study.slots.release("gone")
    worker.work()
    assert [record.state for record in study.history.records()] == [end]
    assert study.slots.counts() == {SlotState(end): 1}
    assert list(tmp_path.glob("*.pt")) == []


def test_a_new_try_does_not_inherit_the_losses_of_the_last(begin) -> None:
    study, worker = begin("FailsLater", trials=1, retries=1)
    begin_and_leave(study, {})
    worker._on_end = lambda record: worker._interruption.ask()
    worker.work()
    slot = study.slots.claim("next")
    assert (slot.losses, slot.trial) == (0, None)


def test_a_failed_slot_that_is_retried_gets_one_more_try(begin, task_dir) -> None:
    study, worker = begin("FailsLater", trials=1)
    worker.work()
    assert [record.state for record in study.history.records()] == ["failed"] * 2
    assert study.slots.retry() == 1
    mended = load_task("tiny.py:Tiny", folder=task_dir).task
    _, worker = begin("FailsLater", trials=1)
    worker._make_run = run_maker(mended, study.facts, CPU)
    worker.work()
    records = study.history.records()
    assert [record.state for record in records] == ["failed", "failed", "complete"]
    assert records[0].params == records[2].params


def test_a_trial_told_by_a_sleeper_is_not_told_again(begin, task_dir) -> None:
    study, worker = begin("Noisy", trials=1)
    number = begin_and_leave(study, {})
    expected = undisturbed(study, task_dir, study.trial(number))
    report = study.log.report

    def told_meanwhile(trial, values):
        if 3 in values:
            report(number, expected)
            study.log.complete(number, expected[4], {"metrics": {}, "seconds": 1.0})
        return report(trial, values)

    study.log.report = told_meanwhile
    worker.work()
    (record,) = study.history.records()
    assert (record.state, record.values) == ("complete", expected)
    assert study.slots.counts() == {SlotState.COMPLETE: 1}


def test_a_worker_that_lost_its_slot_writes_nothing_and_takes_another(
    begin, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(attempt, "SAVES_APART", 0)  # every epoch is saved
    study, worker = begin("Noisy", trials=2)
    worker._checkpoint_seconds = 0.0
    leases, thief = [], []
    enter, report = Lease.__enter__, study.log.report

    def entered(lease):
        leases.append(lease)
        return enter(lease)

    def steal(trial, values):
        sent = report(trial, values)
        if 2 in values and not thief:
            expired = sa.update(table).values(expires=1.0).where(table.c.number == 0)
            with study.database.engine.begin() as connection:
                connection.execute(expired)
            thief.append(study.slots.take_over(study.slots.claims()[0], "thief"))
            (tmp_path / "trial-0.pt").unlink()
            leases[0]._renew()
        return sent

    monkeypatch.setattr(Lease, "__enter__", entered)
    study.log.report = steal
    worker._on_end = lambda record: worker._interruption.ask()
    worker.work()
    lost, new = study.history.records()
    assert (lost.state, sorted(lost.values)) == ("running", [1, 2])
    assert (new.slot, new.state) == (1, "complete")
    assert study.slots.renew(thief[0])
    assert list(tmp_path.glob("*.pt")) == []


def test_a_trial_that_was_told_just_before_its_worker_died_is_not_run_again(begin) -> None:
    study, worker = begin(trials=1)
    slot = study.slots.claim("gone")
    params = study.space.seed_points("cyclic")[0]
    number = study.begin(slot, params, {"worker": "gone", "device": "cpu"})
    study.log.report(number, {1: 0.5})
    study.log.complete(number, 0.5, {})
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


def test_it_waits_for_the_slot_of_a_worker_that_went_silent(begin, monkeypatch) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 1.0)
    study, worker = begin(trials=2)
    lost = study.slots.claim("silent")
    soon = "UPDATE clrsearch_slots SET expires = (julianday('now') - 2440587.5) * 86400 + 1.5"
    with study.database.engine.begin() as connection:
        connection.exec_driver_sql(f"{soon} WHERE number = 0")
    worker.work()
    assert study.slots.counts() == {SlotState.COMPLETE: 2}
    assert [record.slot for record in study.history.records()] == [1, 0]
    assert not study.slots.renew(lost)


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_optunas_pruners_stop_what_they_would_stop_in_a_study_of_optunas(
    begin, monkeypatch, pruner
) -> None:
    monkeypatch.setattr("clrsearch.worker.attempt.REPORT_SECONDS", 0.0)
    study, worker = begin("Noisy", trials=24, pruner=pruner, sampler="random", seeds=1)
    worker.work()
    records = study.history.records()
    assert sum(record.state == "pruned" and not record.diverged for record in records) >= 3
    alone = optuna.create_study(study_name=study.name, pruner=PRUNERS[pruner](4))
    kept = study.traces.seed_points("cyclic") | study.traces.seed_points("constant")
    for record in records:
        trial = alone.ask()
        spared = study.traces.of(record) in kept or record.family == "constant"
        stopped = False
        for epoch, value in record.values.items():
            trial.report(value, epoch)
            stopped = epoch < 4 and not spared and trial.should_prune()
        assert stopped == (record.state == "pruned")
        if record.state == "complete":
            alone.tell(trial, record.value)
        else:
            alone.tell(trial, state=optuna.trial.TrialState.PRUNED)
