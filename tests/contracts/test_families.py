"""Every family: its closed form, torch scheduler, source code and space say the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from spaces import require_inside

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    FAMILIES,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Linear,
    Manual,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Setting,
    SourceFile,
    Step,
    WarmupStableDecay,
    momentum_of,
    render,
    trace,
)
from clrsearch.schedules.decay import Decay

STEPS_PER_EPOCH = 7
EPOCHS = 12
HORIZON = STEPS_PER_EPOCH * EPOCHS

LONG = 1_430 * STEPS_PER_EPOCH

CYCLIC = {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 14.7}
MOMENTUM = {"cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.95}


def schedules(horizon: int, *, fractions: bool) -> list[Schedule]:
    """Schedules of every family for a horizon, with warm-ups that last ``fractions`` of a step."""
    warmups = (0, horizon // 7, *((horizon / 7 + 0.3,) if fractions else ()))
    decays = (decay for warmup in warmups for decay in decaying(horizon, warmup))
    return [Constant(lr=0.03), *cyclic(), *one_cycle(horizon), *decays, *manual(horizon)]


def cyclic() -> Iterator[Schedule]:
    modes: list[dict[str, Any]] = [
        {"mode": "triangular"},
        {"mode": "triangular2"},
        {"mode": "exp_range", "gamma": 0.97},
        {"scale_fn": "sine", "scale_mode": "cycle"},
        {"scale_fn": "slow_decay", "scale_mode": "iterations"},
    ]
    for mode, down, momentum in itertools.product(
        modes, ({}, {"step_size_down": 5.0}), ({}, MOMENTUM)
    ):
        yield Cyclic(**CYCLIC, **mode, **down, **momentum)


def one_cycle(horizon: int) -> Iterator[Schedule]:
    for strategy, momentum in itertools.product(("cos", "linear"), ({}, MOMENTUM)):
        yield OneCycle(
            max_lr=0.3,
            horizon=horizon,
            pct_start=0.3,
            div_factor=25.0,
            final_div_factor=1e4,
            anneal_strategy=strategy,
            **momentum,
        )


def manual(horizon: int) -> Iterator[Manual]:
    epochs = horizon // STEPS_PER_EPOCH
    given: dict[str, Any] = {"steps_per_epoch": STEPS_PER_EPOCH, "epochs": epochs}
    ends = (epochs / 4, epochs / 2)
    yield Manual(rates=((ends[0], 0.3), (ends, 0.1), (epochs - ends[1], 0.01)), scale=0.7, **given)
    for function in (hand_written, in_single_precision):
        name = f"{__name__}:{function.__name__}"
        yield Manual(rates=name, function=function, scale=1.7, **given)


def hand_written(step: int, steps_per_epoch: int) -> float:
    return 0.3 / (1 + step / steps_per_epoch)


def in_single_precision(step: int, steps_per_epoch: int) -> np.float32:
    return np.float32(0.3) / np.float32(1 + step / steps_per_epoch)


def decaying(horizon: int, warmup: float) -> Iterator[Decay]:
    peak: dict[str, Any] = {"lr": 0.3, "warmup": warmup}
    filling = {**peak, "horizon": horizon}
    yield Step(**peak, step_size=horizon // 4 + 1, gamma=0.1)
    yield MultiStep(**peak, milestones=(horizon // 2, horizon // 4 * 3), gamma=0.2)
    yield Exponential(**peak, gamma=0.01 ** (1 / horizon))
    yield Linear(**filling)
    yield Polynomial(**filling, power=0.5)
    yield Polynomial(**filling, power=2.0)
    yield Cosine(**filling)
    yield Cosine(**filling, eta_min=0.02)
    yield CosineRestarts(**filling, cycles=2)
    yield CosineRestarts(**filling, cycles=5, eta_min=0.02)
    yield CosineRestarts(**filling, cycles=3, T_mult=2)
    yield CosineRestarts(**filling, cycles=3, T_mult=3, eta_min=0.02)
    yield WarmupStableDecay(**filling, decay=horizon // 5)
    yield WarmupStableDecay(**filling, decay=horizon / 3, shape="1-sqrt", min_lr=0.02)
    yield WarmupStableDecay(**filling, decay=horizon // 2, power=0.4)
    yield WarmupStableDecay(**filling, decay=horizon / 3, power=2.5, min_lr=0.02)


SCHEDULES = schedules(HORIZON, fractions=True)
DECAYS = [schedule for schedule in SCHEDULES if isinstance(schedule, Decay)]
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups),
    "adamw": lambda groups: torch.optim.AdamW(groups),
    "plain": lambda groups: torch.optim.SGD(groups),
    "adagrad": lambda groups: torch.optim.Adagrad(groups),
}
RATIOS = [(1.0,), (1.0, 10.0, 0.3)]


def make_optimizer(name: str, ratios: tuple[float, ...]) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.02 * r} for r in ratios]
    return OPTIMIZERS[name](groups)


def stepped(optimizer, scheduler, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The rates and momenta that the optimizer has at each step, both (groups, steps)."""
    rates, momenta = [], []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        momenta.append(
            [
                group["betas"][0] if "betas" in group else group.get("momentum", 0.0)
                for group in optimizer.param_groups
            ]
        )
        optimizer.step()
        scheduler.step()
    return np.array(rates).T, np.array(momenta).T


def agree(schedule: Schedule, rates: np.ndarray, momenta: np.ndarray, ratios) -> None:
    expected = trace(schedule, rates.shape[1], ratios)
    tolerance = 1e-12 * expected.rates.max()
    np.testing.assert_allclose(rates, expected.rates, rtol=0, atol=tolerance)
    if expected.momenta is not None:
        np.testing.assert_allclose(momenta, expected.momenta, rtol=0, atol=1e-12)


def cycles_momentum(schedule: Schedule) -> bool:
    return getattr(schedule, "cycle_momentum", False)


def can_follow(schedule: Schedule, optimizer: str) -> bool:
    return not (cycles_momentum(schedule) and optimizer in ("plain", "adagrad"))


ONE_OF_EACH = list({(each.family, cycles_momentum(each)): each for each in SCHEDULES}.values())
"""A schedule of every family, and one more of those that can cycle the momentum."""


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_closed_form_is_torchs_scheduler(schedule) -> None:
    for ratios, name in zip(RATIOS, ("sgd", "adamw"), strict=True):
        optimizer = make_optimizer(name, ratios)
        scheduler = schedule.scheduler(optimizer)
        agree(schedule, *stepped(optimizer, scheduler, HORIZON), ratios)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ONE_OF_EACH, ids=repr)
def test_every_optimizer_follows_or_is_refused(schedule, optimizer_name) -> None:
    optimizer = make_optimizer(optimizer_name, (1.0,))
    if not can_follow(schedule, optimizer_name):
        with pytest.raises(ScheduleError, match="momentum"):
            schedule.scheduler(optimizer)
        return
    scheduler = schedule.scheduler(optimizer)
    agree(schedule, *stepped(optimizer, scheduler, HORIZON), (1.0,))


@pytest.mark.parametrize("schedule", schedules(LONG, fractions=False), ids=repr)
def test_the_faces_agree_over_a_long_horizon(schedule) -> None:
    ratios = RATIOS[-1]
    native, pasted = (make_optimizer(name, ratios) for name in ("nesterov", "adamw"))
    agree(schedule, *stepped(native, schedule.scheduler(native), LONG), ratios)
    scheduler = executed(schedule, len(ratios), LONG)(pasted, STEPS_PER_EPOCH)
    agree(schedule, *stepped(pasted, scheduler, LONG), ratios)


@pytest.mark.parametrize(
    "schedule",
    [each for each in DECAYS if each.warmup == int(each.warmup) and each.family != "wsd"],
    ids=repr,
)
def test_behind_a_whole_warm_up_the_decay_is_torchs_own(schedule) -> None:
    left = HORIZON - schedule.warmup
    shorter: dict[str, Any] = {"warmup": 0}
    if hasattr(schedule, "horizon"):
        shorter["horizon"] = left
    if isinstance(schedule, MultiStep):
        shorter["milestones"] = tuple(each - schedule.warmup for each in schedule.milestones)
    optimizer = make_optimizer("sgd", (1.0,))
    scheduler = replace(schedule, **shorter).scheduler(optimizer)
    if isinstance(schedule, CosineRestarts):
        first_cycle = float(schedule.restarts[1] - schedule.warmup)
        if not first_cycle.is_integer():
            assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
            return
    assert not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
    rates, _ = stepped(optimizer, scheduler, left)
    expected = trace(schedule, HORIZON).rates
    np.testing.assert_allclose(
        rates, expected[:, schedule.warmup :], rtol=0, atol=1e-12 * expected.max()
    )


@pytest.mark.parametrize("schedule", DECAYS, ids=repr)
def test_a_warm_up_rises_in_a_straight_line_from_a_positive_rate_to_the_peak(schedule) -> None:
    rates = trace(schedule, HORIZON).rates[0]
    rising = np.arange(HORIZON) < schedule.warmup
    expected = 0.3 * np.arange(1, HORIZON + 1) / (schedule.warmup + 1)
    np.testing.assert_allclose(rates[rising], expected[rising], rtol=1e-14)
    assert rates.max() <= 0.3 * (1 + 1e-15)
    if isinstance(schedule.warmup, int):
        assert rates[schedule.warmup] == 0.3


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_generated_code_plays_the_schedule(schedule) -> None:
    for ratios, name in zip(RATIOS, ("nesterov", "adamw"), strict=True):
        optimizer = make_optimizer(name, ratios)
        scheduler = executed(schedule, len(ratios))(optimizer, STEPS_PER_EPOCH)
        agree(schedule, *stepped(optimizer, scheduler, HORIZON), ratios)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_generated_code_stretches_with_the_steps_per_epoch(schedule) -> None:
    optimizer = make_optimizer("sgd", (1.0,))
    scheduler = executed(schedule, 1)(optimizer, 3 * STEPS_PER_EPOCH)
    rates, _ = stepped(optimizer, scheduler, 3 * HORIZON)
    expected = trace(schedule, HORIZON).rates
    changes_with_cycle = isinstance(schedule, Cyclic) and schedule.mode is None
    steps = slice(0, HORIZON) if not changes_with_cycle else slice(0, 14)
    tolerance = 1e-9 * expected.max()
    if isinstance(schedule, OneCycle):  # torch's peak is a step of either length before pct_start
        tolerance = np.abs(np.diff(expected)).max()
    np.testing.assert_allclose(rates[:, ::3][:, steps], expected[:, steps], rtol=0, atol=tolerance)


def executed(schedule: Schedule, groups: int, horizon: int = HORIZON):
    file = SourceFile(
        title="A test.",
        found={"study": "none"},
        optimizer="SGD",
        epochs=horizon // STEPS_PER_EPOCH,
        steps_per_epoch=STEPS_PER_EPOCH,
        multipliers=(1.0,) * groups,
    )
    namespace: dict[str, object] = {}
    exec(render(schedule, file), namespace)
    return namespace["make_scheduler"]


CYCLING = {"cyclic": ["whole-cycles", "integers"], "onecycle": ["whole-cycles"]}
"""The families that a momentum matters to, and the kinds of stepsizes that they have."""
CORNERS = [
    corner
    for family in FAMILIES
    for corner in itertools.product(
        [family],
        [4, 7, 20, 33],
        CYCLING.get(family, ["whole-cycles"]),
        ["none", "momentum"] if family in CYCLING else ["none"],
    )
]


@pytest.mark.parametrize(("family", "epochs", "stepsize", "momentum"), CORNERS)
def test_every_corner_of_the_space_is_a_schedule(family, epochs, stepsize, momentum) -> None:
    setting = Setting(
        epochs=epochs,
        steps_per_epoch=31,
        base_lr=0.05,
        momentum=momentum,
        stepsize=stepsize,
        manual=((epochs, 0.1),),
    )
    space = FAMILIES[family].space(setting)
    for combination in itertools.product(*(p.domain.extremes for p in space.values())):
        params: dict = {}
        for (name, parameter), value in zip(space.items(), combination, strict=True):
            if parameter.applies(params):
                params[name] = value
        schedule = FAMILIES[family].build(params, setting)
        rates = trace(schedule, setting.horizon).rates
        assert np.isfinite(rates).all()
        assert (rates >= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_first_settings_lie_in_the_space(family) -> None:
    setting = Setting(
        epochs=20, steps_per_epoch=31, base_lr=0.05, momentum="momentum", manual=((20, 0.1),)
    )
    space = FAMILIES[family].space(setting)
    for params in FAMILIES[family].seed_points(setting, space):
        require_inside(params, space)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_an_optimizer_that_had_a_scheduler_is_refused(schedule) -> None:
    optimizer = make_optimizer("sgd", (1.0,))
    schedule.scheduler(optimizer)
    with pytest.raises(ScheduleError, match="create a new one"):
        schedule.scheduler(optimizer)


def test_the_registry_knows_each_family_by_its_own_name() -> None:
    assert {name: family.family for name, family in FAMILIES.items()} == {
        name: name for name in FAMILIES
    }


def test_momentum_of_tells_what_can_be_cycled() -> None:
    kinds = {name: momentum_of(make_optimizer(name, (1.0,))) for name in OPTIMIZERS}
    assert kinds == {
        "sgd": "momentum",
        "nesterov": "momentum",
        "rmsprop": "momentum",
        "adam": "betas",
        "adamw": "betas",
        "plain": "none",
        "adagrad": "none",
    }
