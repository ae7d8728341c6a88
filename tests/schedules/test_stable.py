"""Warm-up, hold and decay against arithmetic done by hand, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import Choice, Range, Schedule, Setting, WarmupStableDecay, trace

SETTING = Setting(epochs=20, steps_per_epoch=31, base_lr=0.05, momentum="momentum")
SIZES = {"lr": 8.0, "warmup": 3, "horizon": 10, "decay": 4}


def rates(schedule: Schedule, steps: int) -> list[float]:
    return trace(schedule, steps).rates[0].tolist()


def test_it_rises_holds_and_falls() -> None:
    assert rates(WarmupStableDecay(**SIZES), 12) == [2, 4, 6, 8, 8, 8, 8, 6, 4, 2, 0, 0]


def test_the_floor_is_a_rate() -> None:
    found = rates(WarmupStableDecay(**SIZES, min_lr=4.0), 11)
    np.testing.assert_allclose(found, [2, 4, 6, 8, 8, 8, 8, 7, 6, 5, 4], rtol=1e-14)


def test_1_sqrt_falls_at_once() -> None:
    found = rates(WarmupStableDecay(**SIZES, shape="1-sqrt"), 11)
    fall = [8, 4, 8 - 8 * 0.5**0.5, 8 - 4 * 3**0.5, 0]
    np.testing.assert_allclose(found, [2, 4, 6, 8, 8, 8, *fall], rtol=1e-13)


def test_a_power_bends_the_fall() -> None:
    found = rates(WarmupStableDecay(**SIZES, power=2.0), 11)
    np.testing.assert_allclose(found, [2, 4, 6, 8, 8, 8, 8, 4.5, 2, 0.5, 0], rtol=1e-14)
    found = rates(WarmupStableDecay(**SIZES, power=0.5, min_lr=4.0), 11)
    fall = [4 + 4 * left**0.5 for left in (0.75, 0.5, 0.25)]
    np.testing.assert_allclose(found, [2, 4, 6, 8, 8, 8, 8, *fall, 4], rtol=1e-14)


def test_the_power_is_searched_in_place_of_the_shape_if_bounds_name_it() -> None:
    assert "power" not in WarmupStableDecay.space(SETTING)
    setting = replace(SETTING, bounded=frozenset({"power"}))
    space = WarmupStableDecay.space(setting)
    assert "shape" not in space
    assert space["power"].domain == Range(low=0.3, high=3.0, log=True)
    first = WarmupStableDecay.seed_points(setting, space)[0]
    assert WarmupStableDecay.build(first, setting) == WarmupStableDecay(
        lr=0.05, warmup=31, horizon=620, decay=124, power=1.0
    )


def test_without_a_warm_up_it_begins_at_the_peak() -> None:
    assert rates(WarmupStableDecay(lr=8.0, horizon=4, decay=2), 4) == [8, 8, 8, 4]
    assert rates(WarmupStableDecay(lr=8.0, horizon=4, decay=4), 4) == [8, 6, 4, 2]


def test_groups_keep_their_ratio_down_to_the_floor() -> None:
    both = trace(WarmupStableDecay(**SIZES, min_lr=4.0), 11, (1.0, 0.5)).rates
    np.testing.assert_allclose(both[:, [0, 4, 10]], [[2, 8, 4], [1, 4, 2]], rtol=1e-14)


def test_its_parts_are_searched_as_shares_of_the_horizon() -> None:
    space = WarmupStableDecay.space(SETTING)
    assert space["decay_share"].domain == Range(low=0.1, high=0.5)
    assert space["shape"].domain == Choice(options=("linear", "1-sqrt"))
    params = {"lr": 2.0, "warmup_share": 0.1, "decay_share": 0.25, "min_ratio": 0.1}
    assert WarmupStableDecay.build(params | {"shape": "linear"}, SETTING) == WarmupStableDecay(
        lr=2.0, warmup=62, horizon=620, decay=155, shape="linear", min_lr=0.2
    )


def test_what_practitioners_do_comes_first() -> None:
    first = WarmupStableDecay.seed_points(SETTING, WarmupStableDecay.space(SETTING))
    assert WarmupStableDecay.build(first[0], SETTING) == WarmupStableDecay(
        lr=0.05, warmup=31, horizon=620, decay=124, shape="1-sqrt"
    )


def test_one_step_is_enough() -> None:
    single = Setting(epochs=1, steps_per_epoch=1, base_lr=0.05, momentum="none")
    (first, *_) = WarmupStableDecay.seed_points(single, WarmupStableDecay.space(single))
    assert rates(WarmupStableDecay.build(first, single), 1) == [0.05]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"decay": 0}, "decay must be a positive number of steps"),
        ({"decay": math.nan}, "decay must be a positive number of steps"),
        ({"decay": 8}, "decay 8 does not fit after the warm-up 3: the horizon is 10"),
        ({"warmup": 10}, "warmup 10 must be shorter than the horizon 10"),
        ({"horizon": 10.5}, "horizon must be a whole number of steps"),
        ({"shape": "sqrt"}, "shape must be one of linear, 1-sqrt, not 'sqrt'"),
        ({"min_lr": -1.0}, "min_lr must be 0 or more"),
        ({"min_lr": 9.0}, "min_lr 9.0 is above lr 8.0"),
        ({"lr": math.inf}, "lr must be positive"),
        ({"power": 0.0}, "power must be positive"),
        ({"power": 2.0, "shape": "1-sqrt"}, "power needs the shape linear, not 1-sqrt"),
    ],
)
def test_wrong_values_are_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named):
        WarmupStableDecay(**(SIZES | changes))
