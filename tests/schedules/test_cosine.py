"""Cosine schedules against arithmetic done by hand and torch's own, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LRScheduler,
)

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    Cosine,
    CosineRestarts,
    Range,
    Schedule,
    Setting,
    SourceFile,
    render,
    trace,
)

ROOT = 0.5**0.5  # the cosine of an eighth of a turn


def rates(schedule: Schedule, steps: int) -> list[float]:
    return trace(schedule, steps).rates[0].tolist()


def optimizer(groups: int = 1) -> torch.optim.SGD:
    weights = [torch.zeros(1, requires_grad=True) for _ in range(groups)]
    return torch.optim.SGD([{"params": [weight], "lr": 0.1} for weight in weights])


def setting(**changes) -> Setting:
    given = {"epochs": 20, "steps_per_epoch": 31, "base_lr": 0.05, "momentum": "momentum"}
    return Setting(**(given | changes))


def test_cosine() -> None:
    expected = [2, 1 + ROOT, 1, 1 - ROOT, 0, 0]
    np.testing.assert_allclose(rates(Cosine(lr=2.0, horizon=4), 6), expected, atol=1e-15)


def test_the_floor_is_a_rate() -> None:
    expected = [3, 2 + ROOT, 2, 2 - ROOT, 1]
    found = rates(Cosine(lr=3.0, horizon=4, eta_min=1.0), 5)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_a_warm_up_shortens_the_way_down() -> None:
    expected = [2 / 3, 4 / 3, 2, 1 + ROOT, 1, 1 - ROOT]
    found = rates(Cosine(lr=2.0, horizon=6, warmup=2), 6)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_groups_keep_their_ratio_down_to_the_floor() -> None:
    both = trace(Cosine(lr=3.0, horizon=2, eta_min=1.0), 3, (1.0, 10.0)).rates
    np.testing.assert_allclose(both, [[3, 2, 1], [30, 20, 10]], rtol=1e-14)


def test_torchs_floor_is_for_one_group_only() -> None:
    floored = Cosine(lr=3.0, horizon=4, eta_min=1.0)
    assert isinstance(floored.scheduler(optimizer()), CosineAnnealingLR)
    assert isinstance(floored.scheduler(optimizer(2)), LambdaLR)
    assert isinstance(Cosine(lr=3.0, horizon=4).scheduler(optimizer(2)), CosineAnnealingLR)
    assert "CosineAnnealingLR" in floored.code(1).imports[-1]
    assert "LambdaLR" in floored.code(2).imports[-1]


def test_restarts_of_doubled_length() -> None:
    expected = [2, 1 + ROOT, 1, 1 - ROOT]
    expected += [1 + math.cos(eighth * math.pi / 8) for eighth in range(8)]
    schedule = CosineRestarts(lr=2.0, horizon=12, cycles=2, T_mult=2)
    np.testing.assert_allclose(rates(schedule, 12), expected, rtol=1e-14)


def test_cycles_need_not_be_whole_steps() -> None:
    # two cycles of 3.5 steps
    sevenths = [0, 2, 4, 6, 1, 3, 5]
    expected = [1 + math.cos(seventh * math.pi / 7) for seventh in sevenths]
    schedule = CosineRestarts(lr=2.0, horizon=7, cycles=2)
    np.testing.assert_allclose(rates(schedule, 7), expected, rtol=1e-14)
    assert schedule.restarts == (0, 3.5, 7)
    assert isinstance(schedule.scheduler(optimizer()), LambdaLR)


def test_restarts_behind_a_warm_up() -> None:
    schedule = CosineRestarts(lr=2.0, horizon=10, cycles=2, warmup=2)
    wave = [2, 1 + ROOT, 1, 1 - ROOT]
    np.testing.assert_allclose(rates(schedule, 10), [2 / 3, 4 / 3, *wave, *wave], rtol=1e-14)


def test_whole_cycles_are_torchs() -> None:
    schedule = CosineRestarts(lr=2.0, horizon=620, cycles=4, eta_min=0.1)
    found = schedule.scheduler(optimizer())
    assert isinstance(found, CosineAnnealingWarmRestarts)
    assert (found.T_0, found.T_mult, found.eta_min) == (155, 1, 0.1)
    assert isinstance(schedule.scheduler(optimizer(2)), LambdaLR)


@pytest.mark.parametrize("cycles", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 61, 12.3])
def test_the_last_cycle_ends_with_the_horizon(cycles, multiplier, warmup) -> None:
    schedule = CosineRestarts(lr=1.0, horizon=620, cycles=cycles, T_mult=multiplier, warmup=warmup)
    lengths = np.diff(schedule.restarts)
    assert (schedule.restarts[0], schedule.restarts[-1]) == (warmup, 620)
    np.testing.assert_allclose(lengths[1:], multiplier * lengths[:-1], rtol=1e-12)
    found = np.array(rates(schedule, 620))
    assert found[-1] < 0.02 if cycles < 5 else found[-1] < 0.1
    behind = found[math.ceil(warmup) :]
    assert (np.diff(behind) > 0).sum() == cycles - 1


@pytest.mark.parametrize("steps_per_epoch", [7, 10, 30, 32, 100])
def test_stretched_code_ends_its_last_cycle_with_the_horizon_too(steps_per_epoch) -> None:
    schedule = CosineRestarts(lr=1.0, horizon=20 * 31, cycles=3)  # cycles of 206 2/3 steps
    file = SourceFile(title="A.", found={}, optimizer="SGD()", epochs=20, steps_per_epoch=31)
    namespace: dict = {}
    exec(render(schedule, file), namespace)
    one = optimizer()
    scheduler: LRScheduler = namespace["make_scheduler"](one, steps_per_epoch)
    found = []
    for _ in range(20 * steps_per_epoch):
        found.append(one.param_groups[0]["lr"])
        one.step()
        scheduler.step()
    assert found[-1] < 0.01
    assert (np.diff(found) > 0).sum() == 2


@pytest.mark.parametrize(("epochs", "most"), [(3, 2), (6, 2), (7, 3), (20, 4), (31, 5), (500, 5)])
def test_there_are_as_many_cycles_as_fit_when_they_double(epochs, most) -> None:
    space = CosineRestarts.space(setting(epochs=epochs))
    assert space["cycles"].domain == Range(low=2, high=most, integer=True)
    assert 2**most - 1 <= epochs


def test_under_three_epochs_no_restart_fits() -> None:
    with pytest.raises(ScheduleError, match="at least 3 epochs; there are 2"):
        CosineRestarts.space(setting(epochs=2))
    assert Cosine.space(setting(epochs=1))


def test_the_floor_is_searched_as_a_ratio_of_the_peak() -> None:
    params = {"lr": 2.0, "min_ratio": 0.1, "warmup_share": 0.1}
    assert Cosine.build(params, setting()) == Cosine(lr=2.0, warmup=62, horizon=620, eta_min=0.2)
    more = {"cycles": 3, "T_mult": 2}
    assert CosineRestarts.build(params | more, setting()) == CosineRestarts(
        lr=2.0, warmup=62, horizon=620, cycles=3, T_mult=2, eta_min=0.2
    )


def test_what_practitioners_do_comes_first() -> None:
    first = Cosine.seed_points(setting(), Cosine.space(setting()))
    assert first[0] == {"lr": 0.05, "min_ratio": 0.0, "warmup_share": 0.05}
    assert Cosine.build(first[0], setting()).warmup == 31  # one epoch of 20
    few = setting(epochs=4)
    assert CosineRestarts.seed_points(few, CosineRestarts.space(few))[0]["cycles"] == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"eta_min": -0.1}, "eta_min must be 0 or more"),
        ({"eta_min": math.nan}, "eta_min must be 0 or more"),
        ({"eta_min": 2.0}, "eta_min 2.0 is above lr 1.0"),
        ({"horizon": 0}, "horizon must be a positive number of steps"),
        ({"warmup": 10}, "warmup 10 must be shorter than the horizon 10"),
        ({"cycles": 0}, "cycles must be a positive whole number, not 0"),
        ({"cycles": 1.5}, "cycles must be a positive whole number"),
        ({"T_mult": 0}, "T_mult must be a positive whole number, not 0"),
        ({"T_mult": 1.5}, "T_mult must be a positive whole number"),
        ({"lr": 0.0}, "lr must be positive"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named):
        CosineRestarts(**({"lr": 1.0, "horizon": 10, "cycles": 2} | changes))
    if not {"cycles", "T_mult"} & set(changes):
        with pytest.raises(ScheduleError, match=named):
            Cosine(**({"lr": 1.0, "horizon": 10} | changes))
