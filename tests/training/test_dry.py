"""A loop run by itself: its schedule, what it prints, and the mistakes that a study would name."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from contracts.test_families import SCHEDULES
from exported import EPOCHS, STEPS_PER_EPOCH, executed, found
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from clrsearch import dry_run
from clrsearch.errors import ClrsearchError, PlanError, TaskError
from clrsearch.exports import write
from clrsearch.tasks import load_task

BATCHES = 4
OPTIMIZERS = {
    "sgd": lambda groups: SGD(groups, lr=0.01, momentum=0.9),
    "plain": lambda groups: SGD(groups, lr=0.01),
    "adam": lambda groups: Adam(groups, lr=0.01),
}


def cyclic(optimizer, steps_per_epoch):
    return CyclicLR(optimizer, 0.001, 0.1, step_size_up=2 * steps_per_epoch, mode="triangular2")


def one_cycle(optimizer, steps_per_epoch):
    return OneCycleLR(optimizer, [0.1, 0.3], total_steps=3 * steps_per_epoch)


def halving(optimizer, steps_per_epoch):
    return LambdaLR(optimizer, lambda step: 0.5 ** (step // steps_per_epoch))


def groups():
    return [
        {"params": [torch.zeros(2, requires_grad=True)]},
        {"params": [torch.zeros(2, requires_grad=True)], "lr": 0.03},
    ]


def state(optimizer):
    keys = ("lr", "momentum", "betas")
    return [{key: group[key] for key in keys if key in group} for group in optimizer.param_groups]


def learn(optimizer):
    sum(weight.sum() for group in optimizer.param_groups for weight in group["params"]).backward()
    optimizer.step()


def played(make_optimizer, scheduler, epochs=3, batches=BATCHES):
    """Rates and momenta before each step of a loop."""
    seen = []

    def main(run):
        optimizer = make_optimizer(groups())
        playing = run.scheduler(optimizer, batches)
        for _ in run.epochs():
            for _ in range(batches):
                seen.append(state(optimizer))
                learn(optimizer)
                playing.step()
            run.report(error=0.0)

    dry_run(main, epochs=epochs, scheduler=scheduler, device="cpu")
    return seen


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        *itertools.product(("sgd", "adam"), (cyclic, one_cycle, halving)),
        ("plain", halving),
        ("plain", cyclic),  # switches a momentum on
    ],
)
def test_it_plays_what_torch_plays(name, scheduler) -> None:
    optimizer = OPTIMIZERS[name](groups())
    expected = []
    alone = scheduler(optimizer, BATCHES)
    for step in range(3 * BATCHES):
        expected.append(state(optimizer))
        learn(optimizer)
        if step < 3 * BATCHES - 1:
            alone.step()
    assert played(OPTIMIZERS[name], scheduler) == expected


def test_without_a_scheduler_the_rates_stay() -> None:
    seen = played(OPTIMIZERS["sgd"], None)
    assert seen == [[{"lr": 0.01, "momentum": 0.9}, {"lr": 0.03, "momentum": 0.9}]] * 12


@pytest.mark.parametrize(
    "schedule",
    [each for each in SCHEDULES if each.family != "manual"],  # whose code may import a file
    ids=lambda schedule: schedule.family,
)
def test_it_plays_what_best_prints(schedule) -> None:
    exported = found(schedule, ratios=(1.0, 3.0))
    make = executed(write("torch", exported))["make_scheduler"]
    seen = played(OPTIMIZERS["sgd"], make, epochs=EPOCHS, batches=STEPS_PER_EPOCH)
    rates = [[group["lr"] for group in step] for step in seen]
    assert rates == pytest.approx(exported.trace.rates.T, rel=1e-9, abs=1e-12)


def test_it_prints_each_epoch_and_measures_the_test_split(capsys) -> None:
    def main(run):
        optimizer = SGD(groups(), lr=0.01)
        scheduler = run.scheduler(optimizer, 1)
        for epoch in run.epochs():
            learn(optimizer)
            scheduler.step()
            run.report(accuracy=0.25 * epoch, loss=torch.tensor(1 / 3))
        run.test(lambda: {"accuracy": run.options["answer"]})

    dry_run(main, epochs=2, device="cpu", options={"answer": 42})
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/2: accuracy 0, loss 0.33333",
        "epoch 2/2: accuracy 0.25, loss 0.33333",
        "test: accuracy 42",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("per_epoch", "call it after each optimizer.step\\(\\), not once per epoch"),
        ("two_schedulers", "run.scheduler\\(\\) was called twice"),
        ("never_reports", "epoch 1 ended without run.report\\(metric=...\\)"),
        ("reports_nothing", "was given no metric"),
        ("another_models_optimizer", "the optimizer trains nothing"),
        ("breaks_off", "returned after 2 of 4 epochs"),
    ],
)
def test_a_loop_that_breaks_the_contract_is_told_the_same(name, says, task_dir) -> None:
    function = load_task(f"loops.py:{name}", folder=task_dir).task.function
    with pytest.raises(TaskError, match=says):
        dry_run(function, epochs=4, device="cpu")


def test_what_the_loop_raises_comes_out_as_it_is() -> None:
    def main(run):
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        dry_run(main, epochs=4, device="cpu")


def test_the_script_keeps_its_command_line(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/there/script.py", "--data", "x"])

    def main(run):
        raise SystemExit(sys.argv[1:])

    with pytest.raises(SystemExit) as left:
        dry_run(main, epochs=4, device="cpu")
    assert left.value.code == ["--data", "x"]


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (lambda optimizer, steps: None, "returned None, but must return a torch scheduler"),
        (lambda optimizer, steps: ReduceLROnPlateau(optimizer), "whose step.. needs no metric"),
    ],
)
def test_what_is_no_schedule_is_refused(scheduler, says) -> None:
    with pytest.raises(TaskError, match=says):
        played(OPTIMIZERS["sgd"], scheduler)


def test_epochs_are_counted() -> None:
    with pytest.raises(PlanError, match=r"epochs is the float 1.5, but must be a positive whole"):
        dry_run(lambda run: None, epochs=1.5)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({}, "dry_run() needs epochs, or steps and validate_every"),
        ({"steps": 0}, "steps is the int 0, but must be a positive whole number"),
        ({"steps": 9}, "a length of 9 steps needs validate_every"),
        ({"steps": 9, "epochs": 2}, "epochs and steps are both given: leave one of them out"),
    ],
)
def test_a_length_that_is_wrong_is_told(length, message) -> None:
    with pytest.raises(ClrsearchError) as caught:
        dry_run(lambda run: None, **length)
    assert message in str(caught.value)


def test_a_length_in_steps_is_run_and_shown(capsys) -> None:
    def main(run):
        weight = torch.nn.Parameter(torch.ones(()))
        optimizer = SGD([weight], lr=0.1)
        scheduler = run.scheduler(optimizer, total_steps=run.total_steps)
        for steps in run.intervals():
            for _ in steps:
                optimizer.zero_grad()
                (weight**2).backward()
                optimizer.step()
                scheduler.step()
            run.report(rate=optimizer.param_groups[0]["lr"])

    def make(optimizer, total_steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total_steps)

    dry_run(main, steps=10, validate_every=4, scheduler=make, device="cpu")
    rates = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert rates == ["0.06", "0.02", "0.01"]  # after the last step, the last rate is held
