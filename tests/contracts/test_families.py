"""Every family: its closed form, torch scheduler, source code and space say the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    FAMILIES,
    Choice,
    Constant,
    Cyclic,
    Schedule,
    Setting,
    SourceFile,
    momentum_of,
    render,
    trace,
)

STEPS_PER_EPOCH = 7
EPOCHS = 12
HORIZON = STEPS_PER_EPOCH * EPOCHS

CYCLIC = {"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 14.7}
MOMENTUM = {"cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.95}
SCHEDULES: list[Schedule] = [
    Constant(lr=0.03),
    *(
        Cyclic(**CYCLIC, **mode, **down, **momentum)  # type: ignore[arg-type]
        for mode, down, momentum in itertools.product(
            (
                {"mode": "triangular"},
                {"mode": "triangular2"},
                {"mode": "exp_range", "gamma": 0.97},
                {"scale_fn": "sine", "scale_mode": "cycle"},
                {"scale_fn": "slow_decay", "scale_mode": "iterations"},
            ),
            ({}, {"step_size_down": 5.0}),
            ({}, MOMENTUM),
        )
    ),
]
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


def can_follow(schedule: Schedule, optimizer: str) -> bool:
    cycles = isinstance(schedule, Cyclic) and schedule.cycle_momentum
    return not (cycles and optimizer in ("plain", "adagrad"))


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("ratios", RATIOS, ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_closed_form_is_torchs_scheduler(schedule, ratios, optimizer_name) -> None:
    optimizer = make_optimizer(optimizer_name, ratios)
    if not can_follow(schedule, optimizer_name):
        with pytest.raises(ScheduleError, match="momentum"):
            schedule.scheduler(optimizer)
        return
    scheduler = schedule.scheduler(optimizer)
    agree(schedule, *stepped(optimizer, scheduler, HORIZON), ratios)


@pytest.mark.parametrize("horizon", [10_000])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_closed_form_is_torchs_scheduler_over_a_long_horizon(schedule, horizon) -> None:
    optimizer = make_optimizer("sgd", (1.0,))
    agree(schedule, *stepped(optimizer, schedule.scheduler(optimizer), horizon), (1.0,))


@pytest.mark.parametrize("ratios", RATIOS, ids=["1 group", "3 groups"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_generated_code_plays_the_schedule(schedule, ratios) -> None:
    make_scheduler = executed(schedule, len(ratios))
    for name in ("nesterov", "adamw"):
        optimizer = make_optimizer(name, ratios)
        scheduler = make_scheduler(optimizer, STEPS_PER_EPOCH)
        agree(schedule, *stepped(optimizer, scheduler, HORIZON), ratios)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_generated_code_stretches_with_the_steps_per_epoch(schedule) -> None:
    optimizer = make_optimizer("sgd", (1.0,))
    scheduler = executed(schedule, 1)(optimizer, 3 * STEPS_PER_EPOCH)
    rates, _ = stepped(optimizer, scheduler, 3 * HORIZON)
    expected = trace(schedule, HORIZON).rates
    changes_with_cycle = isinstance(schedule, Cyclic) and schedule.mode is None
    steps = slice(0, HORIZON) if not changes_with_cycle else slice(0, 14)
    np.testing.assert_allclose(
        rates[:, ::3][:, steps], expected[:, steps], rtol=0, atol=1e-9 * expected.max()
    )


def executed(schedule: Schedule, groups: int):
    file = SourceFile(
        title="A test.",
        found={"study": "none"},
        optimizer="SGD",
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
        groups=groups,
    )
    namespace: dict[str, object] = {}
    exec(render(schedule, file), namespace)
    return namespace["make_scheduler"]


@pytest.mark.parametrize("momentum", ["none", "momentum", "betas"])
@pytest.mark.parametrize("stepsize", ["whole-cycles", "integers"])
@pytest.mark.parametrize("epochs", [4, 7, 20, 33])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_corner_of_the_space_is_a_schedule(family, epochs, stepsize, momentum) -> None:
    setting = Setting(
        epochs=epochs, steps_per_epoch=31, own_rate=0.05, momentum=momentum, stepsize=stepsize
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
    setting = Setting(epochs=20, steps_per_epoch=31, own_rate=0.05, momentum="momentum")
    space = FAMILIES[family].space(setting)
    for params in FAMILIES[family].first(setting, space):
        assert set(params) == {n for n, p in space.items() if p.applies(params)}
        for name, value in params.items():
            domain = space[name].domain
            if isinstance(domain, Choice):
                assert value in domain.options
            else:
                assert domain.low <= value <= domain.high


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_an_optimizer_that_had_a_scheduler_is_refused(schedule) -> None:
    optimizer = make_optimizer("sgd", (1.0,))
    schedule.scheduler(optimizer)
    with pytest.raises(ScheduleError, match="fresh"):
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
