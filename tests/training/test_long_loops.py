"""Training loops of the user's own that are validated at intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clrsearch.errors import TaskError
from clrsearch.schedules import Linear, trace
from clrsearch.tasks import load_task
from clrsearch.training import Interrupted, probe, run_maker
from clrsearch.training.custom_loop import studied
from clrsearch.training.loop_run import LoopRun

CPU = torch.device("cpu")
TOLD = {"metric": "error", "direction": "minimize"}
STEPS = {"steps": 10, "validate_every": 4}
EPOCHS = {"epochs": 4}


@pytest.fixture
def make(task_dir):
    """Makes runs of a loop, of so many epochs or steps, under a falling rate."""

    def make_run(name, interrupted=lambda: False, **length):
        loaded = load_task(f"long_loops.py:{name}", folder=task_dir)
        facts = probe(loaded, device=CPU, **TOLD, **length)
        played = trace(Linear(lr=0.001, horizon=facts.horizon), facts.horizon)
        course = studied(facts, played)
        return LoopRun(loaded.task, course, seed=0, device=CPU, interrupted=interrupted)

    return make_run


def curve(run, stop_after=None):
    values = {}

    def note(interval):
        values[interval.number] = interval.metrics["error"]
        return interval.number != stop_after

    run.train(note)
    return values


@pytest.mark.parametrize(
    ("length", "ends"),
    [
        (STEPS, (4, 8, 10)),
        ({"epochs": 3, "validate_every": 5}, (5, 10, 12)),
        (EPOCHS, (4, 8, 12, 16)),
        ({"steps": 8, "validate_every": 8}, (8,)),
    ],
)
def test_it_is_validated_where_the_study_says(make, task_dir, length, ends) -> None:
    facts = probe(load_task("long_loops.py:train", folder=task_dir), device=CPU, **TOLD, **length)
    assert (facts.ends, facts.intervals, facts.horizon) == (ends, len(ends), ends[-1])
    assert list(curve(make("train", **length))) == list(range(1, len(ends) + 1))


@pytest.mark.parametrize("name", ["train", "uneven", "tokens"])
def test_it_is_gone_on_with_from_any_validation(make, name) -> None:
    length = STEPS if name == "train" else EPOCHS
    undisturbed = curve(make(name, **length))
    for done in range(1, len(undisturbed)):
        first = make(name, **length)
        begun = curve(first, stop_after=done)
        state = first.state()
        torch.manual_seed(99)
        second = make(name, **length)
        second.restore(state)
        assert begun | curve(second) == undisturbed


def test_a_state_of_an_earlier_version_is_gone_on_with(make) -> None:
    undisturbed = curve(make("train", **EPOCHS))
    first = make("train", **EPOCHS)
    curve(first, stop_after=2)
    state = first.state()
    del state["step"]  # it followed from the epoch
    second = make("train", **EPOCHS)
    second.restore(state)
    rest = curve(second)
    assert rest == {number: undisturbed[number] for number in (3, 4)}


def test_it_leaves_between_two_steps_when_asked(make) -> None:
    asked = iter([False] * 7)
    run = make("train", **STEPS, interrupted=lambda: next(asked, True))
    with pytest.raises(Interrupted):
        curve(run)
    assert run.epoch == 1


def test_epochs_that_differ_in_length_have_a_mean_length(task_dir) -> None:
    loaded = load_task("long_loops.py:uneven", folder=task_dir)
    facts = probe(loaded, device=CPU, **TOLD, **EPOCHS)
    assert (facts.steps_per_epoch, facts.horizon, facts.ends) == (3.5, 14, (4, 7, 10, 14))


def test_progress_is_the_place_in_the_schedule(task_dir) -> None:
    loaded = load_task("long_loops.py:tokens", folder=task_dir)
    facts = probe(loaded, device=CPU, **TOLD, **EPOCHS)
    assert (facts.horizon, facts.steps_per_epoch) == (100, 25)
    played = trace(Linear(lr=0.001, horizon=100), 100)
    found = []
    run = LoopRun(loaded.task, studied(facts, played), seed=0, device=CPU)
    run.train(lambda epoch: bool(found.append(epoch.metrics["rate"])) or True)
    steps = np.array([25, 50, 75, 99])  # after the last step, the last rate is held
    assert found == pytest.approx(0.001 * (1 - steps / 100), rel=1e-6)


@pytest.mark.parametrize("name", ["prepares", "prepares_two"])
def test_what_is_prepared_is_built_once_per_process(name, task_dir) -> None:
    loaded = load_task(f"long_loops.py:{name}", folder=task_dir)
    facts = probe(loaded, device=CPU, **TOLD, **EPOCHS)
    built = loaded.task.function.__globals__["built"]
    built.clear()
    played = trace(Linear(lr=0.001, horizon=16), 16)
    make_run = run_maker(loaded.task, facts, CPU)
    for seed_index in range(3):
        make_run(played, seed=5, seed_index=seed_index).train(lambda epoch: True)
    assert len(built) == 1
    run_maker(loaded.task, facts, CPU)(played, seed=5, seed_index=0).train(lambda epoch: True)
    run_maker(loaded.task, facts, CPU)(played, seed=6, seed_index=0).train(lambda epoch: True)
    assert built[0] == built[1] != built[2]


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        (
            "one_step_short",
            STEPS,
            "scheduler.step() was called 3 times in interval 1, which has 4 steps: call it once "
            "for each step of run.intervals()",
        ),
        (
            "by_epochs",
            {"epochs": 4, "validate_every": 3},
            "the study validates every 3 steps: iterate over run.intervals(), in place of "
            "run.epochs()",
        ),
        (
            "per_epoch",
            STEPS,
            "run.scheduler() was given steps_per_epoch, but the study trains for 10 steps: pass "
            "total_steps=run.total_steps",
        ),
        (
            "another_total",
            STEPS,
            "total_steps is 7, but the study trains for 10: pass run.total_steps",
        ),
        ("both", EPOCHS, "run.scheduler() needs either steps_per_epoch or total_steps"),
        (
            "another_total",
            {"epochs": 1, "validate_every": 8},
            "validate_every is 8 steps, longer than the run, which has 7",
        ),
        ("another_total", {"epochs": 8}, "8 epochs cannot share 7 steps"),
        ("train", {"steps": 8}, "a length of 8 steps needs validate_every, the steps between two"),
        ("train", {"steps": 8, "epochs": 2}, "epochs and steps are both given: leave one of them"),
        ("tokens_in_percent", EPOCHS, "scheduler.step(progress=the int 50): progress is the share"),
        ("tokens_back", EPOCHS, "scheduler.step(progress=the float 0.25): it was 0.5 before, and"),
        ("prepares_nothing", EPOCHS, "run.prepare() was given None, but needs a function without"),
    ],
)
def test_each_mistake_is_told_when_it_is_tried_out(name, length, message, task_dir) -> None:
    loaded = load_task(f"long_loops.py:{name}", folder=task_dir)
    with pytest.raises(TaskError) as caught:
        probe(loaded, device=CPU, **TOLD, **length)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uneven_and_short", "in epoch 4, which makes 14 in all, but total_steps is 15"),
        ("uneven_and_long", "in epoch 4, which makes 14 in all, but total_steps is 13"),
        ("tokens_short", "the run is over, but scheduler.step(progress=...) was last told 0.256"),
    ],
)
def test_a_total_that_is_not_kept_is_told_at_the_end(make, name, message) -> None:
    with pytest.raises(TaskError) as caught:
        curve(make(name, **EPOCHS))
    assert message in str(caught.value)
