"""The constant schedule."""

from __future__ import annotations

import math

import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import Constant, Range, Setting, trace

SETTING = Setting(epochs=1, steps_per_epoch=3, base_lr=0.3, momentum="none")


def test_it_never_changes() -> None:
    found = trace(Constant(lr=0.2), 3, (1.0, 0.5))
    assert found.rates.tolist() == [[0.2, 0.2, 0.2], [0.1, 0.1, 0.1]]
    assert found.momenta is None


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(lr) -> None:
    with pytest.raises(ScheduleError, match="lr must be positive"):
        Constant(lr=lr)


def test_the_tasks_own_rate_comes_first() -> None:
    space = Constant.space(SETTING)
    assert space["lr"].domain == Range(low=0.01, high=9.0, log=True)
    assert Constant.seed_points(SETTING, space) == [{"lr": 0.3}]
    assert Constant.build({"lr": 0.2}, SETTING) == Constant(lr=0.2)
