"""timm: its own schedulers, updated after every update."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace

import pytest
import torch
from exported import (
    CYCLIC,
    HORIZON,
    ONE_CYCLE,
    SCHEDULES,
    STEPS_PER_EPOCH,
    agree,
    executed,
    found,
    in_steps,
)

from clrsearch.errors import PlanError
from clrsearch.exports import to_timm, write
from clrsearch.schedules import Cosine, CosineRestarts, Linear, MultiStep, WarmupStableDecay

GROUPS = (1.0, 10.0, 0.3)


def optimizer(ratios: tuple[float, ...]) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.02 * r} for r in ratios]
    return torch.optim.SGD(groups, momentum=0.9)


def played(trained: torch.optim.Optimizer, scheduler) -> list[list[float]]:
    rates = []
    for update in range(1, HORIZON + 1):
        rates.append([group["lr"] for group in trained.param_groups])
        trained.step()
        scheduler.step_update(update)
    return [list(group) for group in zip(*rates, strict=True)]


def expressible(schedule) -> bool:
    whole = getattr(schedule, "warmup", 0) == int(getattr(schedule, "warmup", 0))
    if isinstance(schedule, CosineRestarts):
        return whole and all(step == int(step) for step in schedule.restarts)
    if isinstance(schedule, WarmupStableDecay):
        return whole and schedule.decay == int(schedule.decay) and schedule.power is None
    return whole and schedule.family not in ("cyclic", "onecycle", "manual")


@pytest.mark.parametrize("ratios", [(1.0,), GROUPS], ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_timm_plays_what_it_can_say(schedule, ratios) -> None:
    exported = found(schedule, ratios)
    lowest = getattr(schedule, "warmup", 0) or getattr(schedule, "eta_min", 0.0)
    if not expressible(schedule) or (len(ratios) > 1 and (lowest or schedule_floor(schedule))):
        with pytest.raises(PlanError, match=r"timm cannot .*--format torch can"):
            write("timm", exported)
        return
    trained = optimizer(ratios)
    scheduler = executed(write("timm", exported))["make_scheduler"](trained, STEPS_PER_EPOCH)
    agree(exported, played(trained, scheduler))
    trained, names = optimizer(ratios), executed(write("timm", in_steps(schedule, ratios)))
    agree(exported, played(trained, names["make_scheduler"](trained, HORIZON)))


def schedule_floor(schedule) -> float:
    return getattr(schedule, "min_lr", 0.0)


@pytest.mark.parametrize("schedule", [CYCLIC, ONE_CYCLE])
def test_a_schedule_with_momenta_is_refused(schedule) -> None:
    with pytest.raises(PlanError, match="timm has no equivalent"):
        write("timm", found(schedule))


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(lr=0.3, horizon=HORIZON, eta_min=0.02),
        Cosine(lr=0.3, horizon=HORIZON, warmup=2 * STEPS_PER_EPOCH),
        Linear(lr=0.3, horizon=HORIZON),
        WarmupStableDecay(lr=0.3, horizon=HORIZON, decay=20, warmup=STEPS_PER_EPOCH),
        CosineRestarts(lr=0.3, horizon=HORIZON, cycles=3),
    ],
    ids=repr,
)
def test_the_options_for_train_py_say_the_same(schedule) -> None:
    exported = found(schedule)
    options = re.search(r"For train.py: (.*)", write("timm", exported))
    assert options is not None
    arguments = options_of_train_py().parse_args(options[1].split())
    trained = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.lr)
    from timm.scheduler import create_scheduler

    scheduler, epochs = create_scheduler(arguments, trained, updates_per_epoch=STEPS_PER_EPOCH)
    assert epochs == exported.file.epochs
    agree(exported, played(trained, scheduler))


def options_of_train_py() -> argparse.ArgumentParser:
    """The options of timm's train.py that matter here, with its types and its defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sched", default="cosine")
    parser.add_argument("--sched-on-updates", action="store_true")
    parser.add_argument("--warmup-prefix", action="store_true")
    parser.add_argument("--lr-decay-fn", default=None)
    for name, kind, default in (
        ("lr", float, 0.05),
        ("min-lr", float, 1e-6),
        ("warmup-lr", float, 1e-5),
        ("epochs", int, 300),
        ("warmup-epochs", int, 5),
        ("cooldown-epochs", int, 0),
        ("decay-epochs", float, 90),
        ("decay-rate", float, 0.1),
        ("lr-cycle-mul", float, 1.0),
        ("lr-cycle-decay", float, 0.5),
        ("lr-cycle-limit", int, 1),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    assert {f"--{name.removeprefix('--')}" for name in to_timm.FLAGS.values()} <= set(
        parser._option_string_actions
    )
    return parser


def test_milestones_have_no_options_for_train_py() -> None:
    text = write("timm", found(MultiStep(lr=0.3, milestones=(42, 63), gamma=0.2)))
    assert "train.py" not in text
    assert "decay_milestones=[math.ceil(43 * stretch), math.ceil(64 * stretch)]" in text


def test_multipliers_that_were_found_are_applied() -> None:
    plain = found(Linear(lr=0.3, horizon=HORIZON), (1.0, 2.0))
    exported = replace(plain, file=replace(plain.file, multipliers=(1.0, 5.0)))
    trained = optimizer((1.0, 2.0))
    scheduler = executed(write("timm", exported))["make_scheduler"](trained, STEPS_PER_EPOCH)
    assert [group["lr"] for group in trained.param_groups] == [0.3, 3.0]
    agree(exported, played(trained, scheduler))
