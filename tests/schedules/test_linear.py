"""Linear and polynomial decays against arithmetic done by hand, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import Linear, Polynomial, Range, Schedule, Setting, trace

SETTING = Setting(epochs=20, steps_per_epoch=31, base_lr=0.05, momentum="momentum")


def rates(schedule: Schedule, steps: int) -> list[float]:
    return trace(schedule, steps).rates[0].tolist()


def test_linear_reaches_zero_at_the_horizon_and_stays_there() -> None:
    assert rates(Linear(lr=8.0, horizon=4), 6) == [8, 6, 4, 2, 0, 0]


def test_polynomial() -> None:
    assert rates(Polynomial(lr=16.0, horizon=4, power=2.0), 6) == [16, 9, 4, 1, 0, 0]
    roots = [2, 3**0.5, 2**0.5, 1, 0]
    np.testing.assert_allclose(rates(Polynomial(lr=2.0, horizon=4, power=0.5), 5), roots)


def test_a_warm_up_shortens_the_way_down() -> None:
    expected = [16 / 3, 32 / 3, 16, 9, 4, 1]
    schedule = Polynomial(lr=16.0, horizon=6, power=2.0, warmup=2)
    np.testing.assert_allclose(rates(schedule, 6), expected, rtol=1e-14)


def test_a_power_of_one_is_linear() -> None:
    expected = [0.3, 0.27, 0.24, 0.21, 0.18, 0.15, 0.12, 0.09, 0.06, 0.03]
    np.testing.assert_allclose(rates(Polynomial(lr=0.3, horizon=10, power=1.0), 10), expected)
    np.testing.assert_allclose(rates(Linear(lr=0.3, horizon=10), 10), expected)


def test_groups_keep_their_ratio() -> None:
    both = trace(Linear(lr=8.0, horizon=4), 4, (1.0, 0.5)).rates
    assert both.tolist() == [[8, 6, 4, 2], [4, 3, 2, 1]]


def test_the_horizon_is_the_studys() -> None:
    params = {"lr": 2.0, "warmup_share": 0.1}
    assert Linear.build(params, SETTING) == Linear(lr=2.0, warmup=62, horizon=620)
    assert Polynomial.build(params | {"power": 0.9}, SETTING) == Polynomial(
        lr=2.0, warmup=62, horizon=620, power=0.9
    )


def test_what_practitioners_do_comes_first() -> None:
    assert Linear.seed_points(SETTING, Linear.space(SETTING)) == [
        {"lr": 0.05, "warmup_share": 0.05},
        {"lr": 3 * 0.05, "warmup_share": 0.05},
    ]
    space = Polynomial.space(SETTING)
    assert space["power"].domain == Range(low=0.5, high=3.0, log=True)
    assert [params["power"] for params in Polynomial.seed_points(SETTING, space)] == [0.9, 2.0]


def test_one_epoch_is_enough() -> None:
    single = Setting(epochs=1, steps_per_epoch=1, base_lr=0.05, momentum="none")
    for family in (Linear, Polynomial):
        (first, *_) = family.seed_points(single, family.space(single))
        assert rates(family.build(first, single), 1) == [0.05]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"power": 0.0}, "power must be positive"),
        ({"power": -1.0}, "power must be positive"),
        ({"power": math.inf}, "power must be positive"),
        ({"power": math.nan}, "power must be positive"),
        ({"horizon": -4}, "horizon must be a positive number of steps"),
        ({"horizon": 10.0}, "horizon must be a whole number of steps"),
        ({"warmup": 12}, "warmup 12 must be shorter than the horizon 10"),
        ({"lr": math.nan}, "lr must be positive"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named):
        Polynomial(**({"lr": 1.0, "horizon": 10, "power": 2.0} | changes))
