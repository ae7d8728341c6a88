"""Training loops of the user's own: what they are given, and each of the usual mistakes."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest
import torch
from contracts.test_families import MOMENTUM
from torch.optim import SGD, AdamW

from clrsearch.errors import TaskError
from clrsearch.schedules import Cyclic, Trace, trace
from clrsearch.tasks import load_task
from clrsearch.training import Diverged, Interrupted, Unrestorable, probe
from clrsearch.training.custom_loop import misstepped, studied
from clrsearch.training.loop_run import LoopRun
from clrsearch.training.playback import TraceScheduler

CPU = torch.device("cpu")
GIVEN = {"epochs": 4, "metric": "error", "direction": "minimize"}
FLAT = Trace(rates=np.full((1, 16), 0.0005), momenta=None)


@pytest.fixture
def load(task_dir):
    def find(name, **options):
        return load_task(f"loops.py:{name}", options=options, folder=task_dir)

    return find


@pytest.fixture
def run(load):
    """A run of one of the loops under its facts."""

    def make(name="train", *, played=FLAT, seed_index=0, interrupted=lambda: False, changed=None):
        loaded = load(name)
        facts = probe(loaded, device=CPU, **GIVEN)
        return LoopRun(
            loaded.task,
            studied(facts.model_copy(update=changed or {}), played),
            seed=0,
            seed_index=seed_index,
            tests=seed_index > 0,
            device=CPU,
            interrupted=interrupted,
        )

    return make


def curve(run, stop_after=None):
    values = {}

    def note(epoch):
        values[epoch.number] = epoch.metrics["error"]
        return epoch.number != stop_after

    run.train(note)
    return values


def test_what_is_found_out(load) -> None:
    facts = probe(load("train"), device=CPU, **GIVEN)
    assert (facts.metric, facts.direction, facts.epochs) == ("error", "minimize", 4)
    assert (facts.batch_size, facts.steps_per_epoch, facts.base_lr) == (None, 4, 0.0005)
    assert (facts.ratios, facts.groups, facts.momentum) == ((1.0,), ("0",), "momentum")
    facts = probe(load("adam"), device=CPU, **GIVEN)
    assert (facts.groups, facts.momentum) == (("body", "head"), "betas")
    assert facts.ratios == pytest.approx((1.0, 10.0), rel=1e-15)


def test_arguments_with_defaults_are_no_hindrance(load) -> None:
    assert probe(load("has_arguments"), device=CPU, **GIVEN).base_lr == 0.02


@pytest.mark.parametrize("missing", ["epochs", "metric", "direction"])
def test_what_a_loop_does_not_tell_is_asked_for(load, missing) -> None:
    given = {key: value for key, value in GIVEN.items() if key != missing}
    with pytest.raises(TaskError, match=r"a custom training loop: give its epochs .*--epochs"):
        probe(load("train"), device=CPU, **given)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "forgets_the_scheduler",
            r"ended without calling run.scheduler\(optimizer, steps_per_epoch\)",
        ),
        ("scheduler_too_late", r"run.scheduler\(.*\) was not called before the epochs"),
        ("no_optimizer", r"run.scheduler\(\) was given None, but needs a torch optimizer"),
        ("swaps_the_arguments", r"run.scheduler\(\) was given the int 4, but needs a torch opt"),
        ("no_steps", "steps_per_epoch is the int 0, but must be a positive whole number"),
        ("float_steps", "steps_per_epoch is the float 4.0, but must be a positive whole number"),
        ("two_schedulers", r"run.scheduler\(\) was called twice"),
        ("had_a_scheduler", "the optimizer has already been used with a scheduler: remove"),
        ("another_models_optimizer", "trains nothing: at its first step none of its parameters"),
        ("forgets_gradients", r"trains nothing: .*call zero_grad\(\) before backward\(\)"),
        pytest.param(
            "never_steps_the_optimizer",
            r"the optimizer of run.scheduler\(\) was never stepped",
            marks=pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
        ),
        ("warms_up_by_hand", "in epoch 1 something else set the optimizer's learning rate"),
        ("cannot_be_saved", r"run.checkpoint\(epoch=...\): the int 3 has no state_dict\(\)"),
        ("saves_a_number", r"run.checkpoint\(best=...\): the float 0.0 has no state_dict\(\)"),
        ("saves_unnamed", r"takes keyword arguments: run.checkpoint\(model=model, ...\)"),
        ("saves_at_each_end", r"run.checkpoint\(\) must be called before run.epochs\(\)"),
        ("saves_a_function", r"run.checkpoint\(own=...\): its state_dict\(\) cannot be saved in"),
        (
            "saves_a_scalar",
            r"run.checkpoint\(model=...\): its .*: a numpy._core.multiarray.s",
        ),
        ("per_epoch", "called once in epoch 1, but steps_per_epoch is 4: .*not once per epoch"),
        ("accumulates", "2 times in epoch 1.*of which there were 2; .*accumulated over 2 batches"),
        ("forgets_to_step", "0 times in epoch 1.*call it after each optimizer.step"),
        ("steps_twice", "8 times in epoch 1.*once after each optimizer.step.*there were 4"),
        ("counts_wrong", "4 times in epoch 1, but steps_per_epoch is 3: .*of which there were 4"),
        ("never_reports", r"epoch 1 ended without run.report\(error=...\)"),
        ("reports_twice", "epoch 1 was reported twice"),
        ("reports_before", r"outside the loop over run.epochs\(\)"),
        ("reports_another", "was given accuracy, loss, but not error, the study's metric"),
        ("reports_nothing", "was given nothing, but not error"),
        ("reports_text", r"run.report\(\): error is the str 'small', but must be a number"),
        ("reports_none", r"run.report\(\): error is None, but must be a number"),
        ("reports_a_list", r"run.report\(\): error is a list of 2, but must be a number"),
        ("reports_samples", r"run.report\(\): error is a float32 tensor of shape \(12,\), but"),
        ("reports_a_dict", r"run.report\(\) takes keyword arguments: run.report\(accuracy=0.9\)"),
        ("reports_nan_at_once", "own learning rate, error was not finite in epoch 1"),
        ("breaks_off_at_once", "returned after 1 of 4 epochs"),
        ("needs_arguments", "argument was missing or wrong while running loops.py:needs_arg"),
    ],
)
def test_what_the_first_epoch_shows_is_refused_before_anything_is_stored(load, name, says) -> None:
    with pytest.raises(TaskError, match=says):
        probe(load(name), device=CPU, **GIVEN)


def test_a_loop_is_tried_out_for_one_epoch_at_its_own_rate(load, monkeypatch) -> None:
    loaded = load("train")
    module = sys.modules[loaded.task.function.__module__]
    rates = []

    def note(model, optimizer, batch):
        rates.append(optimizer.param_groups[0]["lr"])
        learn(model, optimizer, batch)

    learn = module.learn
    monkeypatch.setattr(module, "learn", note)
    probe(loaded, device=CPU, **GIVEN)
    assert rates == [0.0005] * 4


def test_a_batch_size_is_the_loops_own(load) -> None:
    with pytest.raises(TaskError, match="makes its own batches"):
        probe(load("train"), device=CPU, batch_size=8, **GIVEN)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("changes_steps", "3 times in epoch 2.*every epoch must have the same number"),
        ("breaks_off", "returned after 2 of 4 epochs"),
        ("cleans_up_badly", "RuntimeError while running .*the log is closed"),
        ("tests_a_number", r"run.test\(\) was given a dict .*, but needs a function"),
    ],
)
def test_what_shows_later_is_named(run, name, says) -> None:
    with pytest.raises(TaskError, match=says):
        run(name).train(lambda epoch: True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"momentum": "none"}, "kind of momentum is momentum here, but was none when the study"),
        ({"steps_per_epoch": 2}, "steps_per_epoch is 4 here, but was 2 when the study was created"),
        ({"ratios": (1.0, 2.0)}, "the number of parameter groups is 1 here, but was 2 when the"),
    ],
)
def test_what_is_not_as_in_the_study_is_named(run, changed, says) -> None:
    with pytest.raises(TaskError, match=says):
        run(changed=changed).train(lambda epoch: True)


def test_a_metric_that_is_no_number_diverges_whatever_the_loop_catches(run) -> None:
    reported = []
    with pytest.raises(Diverged, match="error was not finite in epoch 3"):
        run("reports_nan").train(lambda epoch: reported.append(epoch.number) or True)
    assert reported == [1, 2]


def test_every_epoch_is_told_with_all_that_was_reported(run) -> None:
    told = []
    one = run()
    one.train(lambda epoch: told.append(epoch) or True)
    assert [epoch.number for epoch in told] == [1, 2, 3, 4]
    assert all(epoch.metrics["size"] == 8.0 and epoch.loss is None for epoch in told)
    assert one.epoch == 4
    assert one.seconds > 0
    assert one.test() == {}
    again = run()
    assert curve(again) == {epoch.number: epoch.metrics["error"] for epoch in told}
    other = run(seed_index=1)
    assert curve(other).items() & curve(run()).items() == set()
    assert math.isfinite(other.test()["error"])


def test_it_stops_where_it_is_told_to(run) -> None:
    one = run()
    assert list(curve(one, stop_after=2)) == [1, 2]
    assert one.epoch == 2


def test_a_resumed_run_gives_the_same_values(run) -> None:
    whole = curve(run())
    first = run()
    states = {}

    def save(epoch):
        states[epoch.number] = first.state()
        return epoch.number < 2

    first.train(save)
    assert states[2] is not None
    second = run()
    second.restore(torch.load(saved(states[2]), weights_only=True))
    assert second.epoch == 2
    assert curve(second) == {epoch: whole[epoch] for epoch in (3, 4)}
    assert second.seconds > states[2]["seconds"]


def test_one_that_names_its_parts_before_it_asks_for_the_scheduler_goes_on_too(run) -> None:
    played = Trace(rates=np.outer([1.0, 7.0], np.linspace(0.002, 0.0, 16)), momenta=None)
    whole = curve(run("checkpoint_first", played=played))
    first = run("checkpoint_first", played=played)
    states = {}

    def save(epoch):
        states[epoch.number] = saved(first.state())
        return epoch.number < 3

    first.train(save)
    second = run("checkpoint_first", played=played)
    second.restore(torch.load(states[3], weights_only=True))
    assert curve(second) == {4: whole[4]}


@pytest.mark.parametrize(
    "changes",
    [
        {"objects": None},
        {"objects": {}},
        {"objects": {"model": {}, "optimizer": {}}},
        {"objects": {"model": "a text", "optimizer": 1}},
        {"objects": {"model": {"weight": torch.zeros(9, 9)}, "optimizer": {}}},
        {"objects": {"network": {}, "optimizer": {}}},
        {"epoch": 9},
        {"epoch": "1"},
        {"seconds": "long"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_not_gone_on_from(run, changes) -> None:
    state = {"epoch": 1, "seconds": 1.0, "objects": {"model": {}, "optimizer": {}}} | changes
    second = run()
    with pytest.raises(Unrestorable, match=r"does not fit|was given other names before"):
        second.restore(state)
        second.train(lambda epoch: pytest.fail("it was trained"))


def test_a_loop_that_no_longer_names_its_parts_is_not_gone_on_with(run, monkeypatch) -> None:
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", "unused")
    second = run("unsaved")
    second.restore({"epoch": 1, "seconds": 1.0, "objects": {"model": {}}})
    with pytest.raises(
        Unrestorable, match=r"run.checkpoint\(\) was called before, but not this time"
    ):
        second.train(lambda epoch: True)


def test_a_trial_that_is_ended_is_so_whatever_the_loop_says_of_it(run) -> None:
    assert list(curve(run("cleans_up_badly"), stop_after=2)) == [1, 2]


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_what_cannot_be_saved_is_not(run, monkeypatch, tmp_path) -> None:
    (tmp_path / "gate").touch()
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(tmp_path / "gate"))
    one = run("unsaved")
    states = []
    one.train(lambda epoch: states.append(one.state()) or True)
    assert states == [None] * 4


def test_whoever_is_asked_to_leave_does_within_the_epoch(run) -> None:
    asked = []
    one = run(interrupted=lambda: bool(asked))
    with pytest.raises(Interrupted):
        one.train(lambda epoch: asked.append(epoch) or True)
    assert one.epoch == 1
    assert one.state() is not None  # it was between two epochs
    calls = iter(range(100))
    two = run(interrupted=lambda: next(calls) == 8)
    with pytest.raises(Interrupted):
        two.train(lambda epoch: True)
    assert two.state() is None


def test_what_others_raise_at_an_epochs_end_comes_out(run) -> None:
    def fail(epoch):
        raise ConnectionError("the database")

    with pytest.raises(ConnectionError, match="the database"):
        run("reports_nan").train(fail)


@pytest.mark.parametrize("momentum", ["momentum", "betas"])
def test_the_scheduler_plays_the_trace(momentum) -> None:
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [
        {"params": [weight], "lr": rate} for weight, rate in zip(weights, (0.1, 1.0), strict=True)
    ]
    optimizer = SGD(groups, momentum=0.9) if momentum == "momentum" else AdamW(groups)
    schedule = Cyclic(mode="triangular", base_lr=0.01, max_lr=0.1, step_size_up=5.0, **MOMENTUM)
    played = trace(schedule, 30, (1.0, 10.0))
    scheduler = TraceScheduler(optimizer, played, lambda _: None)
    for step in range(30):
        rates = [group["lr"] for group in optimizer.param_groups]
        key = (lambda g: g["momentum"]) if momentum == "momentum" else (lambda g: g["betas"][0])
        assert rates == played.rates[:, step].tolist()
        assert [key(group) for group in optimizer.param_groups] == played.momenta[:, step].tolist()
        assert scheduler.get_last_lr() == rates
        optimizer.step()
        scheduler.step()
    assert scheduler.steps == 30
    scheduler.step()
    assert scheduler.get_last_lr() == played.rates[:, -1].tolist()
    scheduler.load_state_dict({"last_epoch": 7})
    assert [group["lr"] for group in optimizer.param_groups] == played.rates[:, 7].tolist()
    assert scheduler.state_dict() == {"last_epoch": 7}
    with pytest.raises(ValueError, match="counts optimizer steps"):
        scheduler.step(3)


def test_one_that_has_another_scheduler_behind_it_begins_at_its_own_rate() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=5.0)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # leaves an initial_lr
    played = Trace(rates=np.array([[0.1, 0.2]]), momenta=None)
    TraceScheduler(optimizer, played, lambda _: None)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_as_many_steps_as_expected_are_no_mistake() -> None:
    assert misstepped(47, 47, 47, first=True) is None
    assert misstepped(48, 12, 48, first=True) is None  # per batch, under accumulation


def test_a_step_that_a_scaler_has_skipped_is_named() -> None:
    assert "even when a GradScaler skips" in str(misstepped(99, 99, 100, first=True))
    assert "even when a GradScaler skips" in str(misstepped(99, 99, 100, first=False))
