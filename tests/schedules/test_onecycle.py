"""One cycle against arithmetic done by hand, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clrsearch.errors import ScheduleError
from clrsearch.schedules import OneCycle, Range, Setting, trace

# a rise of 4 steps, from 10 / 5 to 10, and a fall of 5 steps to 10 / 5 / 2
SIZES = {
    "max_lr": 10.0,
    "horizon": 10,
    "pct_start": 0.5,
    "div_factor": 5.0,
    "final_div_factor": 2.0,
}
MOMENTUM = {"cycle_momentum": True, "base_momentum": 0.5, "max_momentum": 0.9}


def setting(**changes) -> Setting:
    given = {"epochs": 20, "steps_per_epoch": 31, "base_lr": 0.05, "momentum": "momentum"}
    return Setting(**(given | changes))


def test_straight_lines() -> None:
    found = trace(OneCycle(**SIZES, anneal_strategy="linear"), 10).rates[0]
    expected = [2, 4, 6, 8, 10, 8.2, 6.4, 4.6, 2.8, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_cosines() -> None:
    found = trace(OneCycle(**SIZES), 10).rates[0]
    root = 0.5**0.5
    up = [2, 6 - 4 * root, 6, 6 + 4 * root, 10]
    down = [5.5 + 4.5 * math.cos(math.pi * fifth / 5) for fifth in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [*up, *down, 1], rtol=1e-14)


def test_momentum_runs_against_the_rate() -> None:
    found = trace(OneCycle(**SIZES, **MOMENTUM, anneal_strategy="linear"), 10, (1.0, 2.0)).momenta
    assert found is not None
    expected = [0.9, 0.8, 0.7, 0.6, 0.5, 0.58, 0.66, 0.74, 0.82, 0.9]
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-14)


def test_groups_keep_their_ratio() -> None:
    both = trace(OneCycle(**SIZES, anneal_strategy="linear"), 10, (1.0, 10.0)).rates
    np.testing.assert_allclose(both[:, [0, 4, 9]], [[2, 10, 1], [20, 100, 10]], rtol=1e-14)


def test_torch_can_be_stepped_once_behind_the_last_step() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = OneCycle(**SIZES).scheduler(optimizer)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        scheduler.step()


def test_without_cycling_the_optimizers_momentum_stays() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.7)
    OneCycle(**SIZES).scheduler(optimizer)
    assert optimizer.param_groups[0]["momentum"] == 0.7
    assert "cycle_momentum=False" in "".join(OneCycle(**SIZES).code(1).body)


def test_without_a_momentum_none_is_searched() -> None:
    plain = OneCycle.space(setting(momentum="none"))
    assert not [name for name in plain if "momentum" in name]
    (first, *_) = OneCycle.seed_points(setting(momentum="none"), plain)
    assert not OneCycle.build(first, setting(momentum="none")).cycle_momentum


def test_a_run_must_have_room_for_a_rise() -> None:
    with pytest.raises(ScheduleError, match="longer than a step; there are 10 steps"):
        OneCycle.space(setting(epochs=1, steps_per_epoch=10))
    short = setting(epochs=1, steps_per_epoch=11)
    for params in OneCycle.seed_points(short, OneCycle.space(short)):
        OneCycle.build({**params, "pct_start": 0.1}, short)


def test_defaults_and_straight_lines_come_first() -> None:
    space = OneCycle.space(setting())
    assert space["max_lr"].domain == Range(low=0.05 / 30, high=0.05 * 30, log=True)
    cosines, lines = (
        OneCycle.build(params, setting()) for params in OneCycle.seed_points(setting(), space)
    )
    momenta = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
    assert cosines == OneCycle(
        max_lr=0.5, horizon=620, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, **momenta
    )
    assert lines == OneCycle(
        max_lr=0.5,
        horizon=620,
        pct_start=0.45,
        div_factor=10.0,
        final_div_factor=100.0,
        anneal_strategy="linear",
        **momenta,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_lr": 0.0}, "max_lr must be positive"),
        ({"max_lr": math.nan}, "max_lr must be positive"),
        ({"horizon": 0}, "horizon must be a positive number of steps"),
        ({"horizon": 10.0}, "horizon must be a whole number of steps"),
        ({"pct_start": 0.0}, "pct_start must be in"),
        ({"pct_start": 1.0}, "pct_start must be in"),
        ({"pct_start": math.nan}, "pct_start must be in"),
        ({"pct_start": 0.1}, "pct_start 0.1 of a horizon of 10 steps is not more than one step"),
        ({"div_factor": 0.5}, "div_factor must be 1 or more"),
        ({"div_factor": math.inf}, "div_factor must be 1 or more"),
        ({"div_factor": math.nan}, "div_factor must be 1 or more"),
        ({"final_div_factor": 0.0}, "final_div_factor must be 1 or more"),
        ({"final_div_factor": math.nan}, "final_div_factor must be 1 or more"),
        ({"anneal_strategy": "cosine"}, "anneal_strategy must be one of cos, linear"),
        ({"cycle_momentum": True}, "cycle_momentum needs base_momentum"),
        ({"max_momentum": 0.9}, "max_momentum requires cycle_momentum"),
        (MOMENTUM | {"max_momentum": 1.0}, "max_momentum must be in"),
        (MOMENTUM | {"base_momentum": 0.95}, "base_momentum 0.95 is above max_momentum 0.9"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named):
        OneCycle(**(SIZES | changes))
