"""What the decaying families share: the warm-up, the peaks, the choice of torch's class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    FAMILIES,
    Cosine,
    Linear,
    Parameter,
    Range,
    ScheduleFree,
    Setting,
    Step,
    trace,
)
from clrsearch.schedules.decay import Decay

SETTING = Setting(epochs=20, steps_per_epoch=31, base_lr=0.05, momentum="momentum")
DECAYING = [
    name
    for name, family in FAMILIES.items()
    if issubclass(family, Decay) and family is not ScheduleFree  # whose rates are higher
]


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def test_a_warm_up_stands_in_front_and_the_decay_fills_the_rest() -> None:
    schedule = Linear(lr=8.0, warmup=3, horizon=7)
    assert trace(schedule, 8).rates[0].tolist() == [2, 4, 6, 8, 6, 4, 2, 0]


def test_a_warm_up_need_not_be_whole() -> None:
    found = trace(Linear(lr=7.0, warmup=2.5, horizon=6), 6).rates[0]
    expected = [7 / 3.5, 14 / 3.5, 21 / 3.5, 7 * 3 / 3.5, 7 * 2 / 3.5, 7 * 1 / 3.5]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_torchs_own_class_is_used_without_a_warm_up_and_one_lambda_with_it() -> None:
    assert type(Step(lr=1.0, step_size=3, gamma=0.1).scheduler(optimizer())).__name__ == "StepLR"
    warmed = Step(lr=1.0, step_size=3, gamma=0.1, warmup=2)
    assert isinstance(warmed.scheduler(optimizer()), LambdaLR)


def test_the_source_says_the_same() -> None:
    plain, warmed = Linear(lr=0.3, horizon=620), Linear(lr=0.3, warmup=31, horizon=620)
    assert plain.code(1).definitions == ()
    assert plain.code(1).body == (
        'optimizer.param_groups[0]["lr"] = 0.3',
        "return LinearLR("
        "optimizer, start_factor=1.0, end_factor=0.0, total_iters=round(620 * stretch))",
    )
    assert warmed.code(1).imports == ("from torch.optim.lr_scheduler import LambdaLR",)
    assert warmed.code(1).definitions == (
        "def factor(step):",
        '    """The share of the peak rate after so many steps of the search."""',
        "    if step < 31:",
        "        return (step + 1) / 32",
        "    progress = min((step - 31) / 589, 1.0)",
        "    return 1.0 - progress",
    )


@pytest.mark.parametrize("family", DECAYING)
def test_the_warm_up_is_searched_as_a_share_of_the_horizon(family) -> None:
    space = FAMILIES[family].space(SETTING)
    assert space["warmup_share"].domain == Range(low=0.0, high=0.2)
    assert space["lr"].domain == Range(low=0.05 / 30, high=0.05 * 30, log=True)
    (first, *_) = FAMILIES[family].seed_points(SETTING, space)
    for share, steps in ((0.0, 0), (0.0005, 0), (0.1, 62), (0.2, 124)):
        assert FAMILIES[family].build({**first, "warmup_share": share}, SETTING).warmup == steps


@pytest.mark.parametrize("family", DECAYING)
def test_the_tasks_own_rate_is_the_first_peak(family) -> None:
    space = FAMILIES[family].space(SETTING)
    first = FAMILIES[family].seed_points(SETTING, space)
    assert first[0]["lr"] == 0.05
    assert {params["lr"] for params in first} <= {0.05, 3 * 0.05}


def test_first_settings_that_bounds_make_equal_are_tried_once() -> None:
    fixed = Parameter(domain=Range(low=0.01, high=0.01, log=True))
    space = {**Cosine.space(SETTING), "lr": fixed}
    assert Cosine.seed_points(SETTING, space) == [
        {"lr": 0.01, "min_ratio": 0.0, "warmup_share": 0.05}
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"warmup": -1}, "warmup must be 0 or more steps"),
        ({"warmup": math.inf}, "warmup must be 0 or more steps"),
        ({"warmup": math.nan}, "warmup must be 0 or more steps"),
        ({"warmup": 10}, "warmup 10 must be shorter than the horizon 10"),
        ({"horizon": 0}, "horizon must be a positive number of steps"),
        ({"horizon": 9.5}, "horizon must be a whole number of steps"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named):
        Linear(**({"lr": 1.0, "warmup": 2, "horizon": 10} | changes))
