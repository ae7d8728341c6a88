"""Cyclic schedules against arithmetic done by hand, and what they refuse."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import SCALE_FUNCTIONS, Cyclic, Range, Setting, trace

SIZES = {"base_lr": 1.0, "max_lr": 5.0, "step_size_up": 2.0}


def rates(schedule: Cyclic, steps: int) -> list[float]:
    return trace(schedule, steps).rates[0].tolist()


def test_triangular() -> None:
    assert rates(Cyclic(**SIZES, mode="triangular"), 9) == [1, 3, 5, 3, 1, 3, 5, 3, 1]


def test_triangular2_halves_the_amplitude_each_cycle() -> None:
    assert rates(Cyclic(**SIZES, mode="triangular2"), 11) == [1, 3, 5, 3, 1, 2, 3, 2, 1, 1.5, 2]


def test_exp_range_scales_by_gamma_to_the_step() -> None:
    expected = [1, 1 + 2 * 0.5, 1 + 4 * 0.25, 1 + 2 * 0.125, 1]
    assert rates(Cyclic(**SIZES, mode="exp_range", gamma=0.5), 5) == expected


def test_a_longer_way_down() -> None:
    schedule = Cyclic(**SIZES, step_size_down=4.0, mode="triangular")
    np.testing.assert_allclose(rates(schedule, 8), [1, 3, 5, 4, 3, 2, 1, 3], rtol=1e-14)


def test_momentum_runs_against_the_rate() -> None:
    schedule = Cyclic(
        **SIZES, mode="triangular", cycle_momentum=True, base_momentum=0.5, max_momentum=0.9
    )
    momenta = trace(schedule, 5, (1.0, 2.0)).momenta
    assert momenta is not None
    np.testing.assert_allclose(momenta, [[0.9, 0.7, 0.5, 0.7, 0.9]] * 2, rtol=1e-14)


def test_groups_keep_their_ratio() -> None:
    both = trace(Cyclic(**SIZES, mode="triangular"), 3, (1.0, 10.0)).rates
    assert both.tolist() == [[1, 3, 5], [10, 30, 50]]


def test_sine_scales_by_the_cycle() -> None:
    # amplitudes 1, 1/2, 0: peaks 1 + 4, 1 + 2, 1
    schedule = Cyclic(**SIZES, scale_fn="sine", scale_mode="cycle")
    np.testing.assert_allclose(rates(schedule, 11)[2::4], [5, 3, 1], atol=1e-12)


def test_slow_decay_scales_by_the_step() -> None:
    assert SCALE_FUNCTIONS["slow_decay"](10_000) == pytest.approx(1 / 5, rel=1e-12)
    assert SCALE_FUNCTIONS["slow_decay"](0) == 1.0


def test_a_stepsize_need_not_be_whole() -> None:
    np.testing.assert_allclose(
        rates(Cyclic(base_lr=0.0, max_lr=1.0, step_size_up=1.5, mode="triangular"), 4),
        [0, 2 / 3, 2 / 3, 0],
        atol=1e-15,
    )


def test_it_can_be_pickled() -> None:
    schedule = Cyclic(**SIZES, scale_fn="sine", scale_mode="cycle")
    assert pickle.loads(pickle.dumps(schedule)) == schedule


MOMENTUM = {"cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.9}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base_lr": 6.0}, "base_lr 6.0 is above max_lr 5.0"),
        ({"base_lr": -1.0}, "base_lr"),
        ({"base_lr": math.nan}, "base_lr"),
        ({"max_lr": math.inf}, "max_lr"),
        ({"max_lr": 0.0, "base_lr": 0.0}, "max_lr"),
        ({"step_size_up": 0.0}, "step_size_up"),
        ({"step_size_up": math.nan}, "step_size_up"),
        ({"step_size_down": -3.0}, "step_size_down"),
        ({"mode": "triangle"}, "mode must be one of triangular, triangular2, exp_range"),
        ({"mode": None}, "either mode or scale_fn"),
        ({"scale_fn": "sine", "scale_mode": "cycle"}, "either mode or scale_fn"),
        ({"mode": None, "scale_fn": "cosine", "scale_mode": "cycle"}, "scale_fn must be one of"),
        ({"mode": None, "scale_fn": "sine"}, "scale_fn needs scale_mode"),
        ({"mode": None, "scale_fn": "sine", "scale_mode": "epochs"}, "scale_mode must be one of"),
        ({"scale_mode": "cycle"}, "scale_mode requires scale_fn"),
        ({"mode": "exp_range"}, "gamma must be"),
        ({"mode": "exp_range", "gamma": 0.0}, "gamma must be"),
        ({"mode": "exp_range", "gamma": 1.5}, "gamma must be"),
        ({"mode": "exp_range", "gamma": math.nan}, "gamma must be"),
        ({"gamma": 0.9}, "gamma is only for mode exp_range"),
        ({"cycle_momentum": True}, "cycle_momentum needs base_momentum"),
        ({"base_momentum": 0.8}, "base_momentum requires cycle_momentum"),
        (MOMENTUM | {"max_momentum": 1.0}, "max_momentum must be in"),
        (MOMENTUM | {"base_momentum": -0.1}, "base_momentum must be in"),
        (MOMENTUM | {"base_momentum": math.nan}, "base_momentum must be in"),
        (MOMENTUM | {"base_momentum": 0.95}, "base_momentum 0.95 is above max_momentum 0.9"),
    ],
)
def test_what_torch_takes_silently_is_refused_by_name(changes, named) -> None:
    with pytest.raises(ScheduleError, match=named.replace("(", r"\(")):
        Cyclic(**(SIZES | {"mode": "triangular"} | changes))


def setting(**changes) -> Setting:
    given = {"epochs": 20, "steps_per_epoch": 31, "base_lr": 0.05, "momentum": "momentum"}
    return Setting(**(given | changes))


@pytest.mark.parametrize(
    ("epochs", "fewest", "most"), [(4, 1, 1), (8, 1, 2), (20, 1, 5), (21, 2, 5), (41, 3, 10)]
)
def test_whole_cycles_have_stepsizes_of_2_to_10_epochs(epochs, fewest, most) -> None:
    cycles = Cyclic.space(setting(epochs=epochs))["cycles"].domain
    assert cycles == Range(low=fewest, high=most, integer=True)
    for n in range(fewest, most + 1):
        assert 2 <= epochs / (2 * n) <= 10


def test_under_four_epochs_no_whole_number_of_epochs_is_a_stepsize() -> None:
    with pytest.raises(ScheduleError, match="at least 4 epochs"):
        Cyclic.space(setting(epochs=3, stepsize="integers"))


@pytest.mark.parametrize(
    ("epochs", "steps", "most"), [(1, 500, 3), (3, 500, 3), (1, 5, 2), (3, 1, 1), (2, 1, 1)]
)
def test_shorter_runs_have_one_to_three_whole_cycles(epochs, steps, most) -> None:
    short = setting(epochs=epochs, steps_per_epoch=steps)
    space = Cyclic.space(short)
    assert space["cycles"].domain == Range(low=1, high=most, integer=True)
    for n in range(1, most + 1):
        params = {"mode": "triangular", "max_lr": 1.0, "base_ratio": 0.1, "cycles": n}
        schedule = Cyclic.build(params, short)
        assert schedule.step_size_up == epochs * steps / (2 * n)
        assert schedule.at(np.array([float(epochs * steps)]))[0][0] == pytest.approx(0.1, rel=1e-9)


def test_one_step_is_no_cycle() -> None:
    with pytest.raises(ScheduleError, match="a cycle takes at least 2 steps; the run has 1"):
        Cyclic.space(setting(epochs=1, steps_per_epoch=1))


def test_whole_cycles_end_at_a_trough() -> None:
    params = {"mode": "triangular", "max_lr": 1.0, "base_ratio": 0.1, "cycles": 3}
    schedule = Cyclic.build(params, setting())
    assert schedule.step_size_up == 620 / 6
    assert schedule.at(np.array([620.0]))[0][0] == pytest.approx(0.1, rel=1e-9)


def test_integer_stepsizes_are_in_epochs() -> None:
    asked = setting(stepsize="integers")
    assert Cyclic.space(asked)["stepsize"].domain == Range(low=2, high=10, integer=True)
    params = {"mode": "triangular", "max_lr": 1.0, "base_ratio": 0.1, "stepsize": 4}
    assert Cyclic.build(params, asked).step_size_up == 124


def test_gamma_is_searched_as_the_amplitude_left_at_the_horizon() -> None:
    params = {"mode": "exp_range", "max_lr": 1.0, "base_ratio": 0.1, "cycles": 2}
    schedule = Cyclic.build(params | {"amplitude_left": 0.05}, setting())
    assert schedule.gamma is not None
    assert schedule.gamma**620 == pytest.approx(0.05, rel=1e-9)


def test_smiths_settings_come_first_one_per_mode() -> None:
    space = Cyclic.space(setting())
    first = Cyclic.seed_points(setting(), space)
    assert [params["mode"] for params in first] == ["triangular", "triangular2", "exp_range"]
    for params in first:
        assert params["max_lr"] == pytest.approx(0.05 * 30 / 3)
        assert params["base_ratio"] == 0.25
        assert params["cycles"] == 3  # a stepsize of 3.3 epochs; 2 cycles would make it 5
        assert (params["base_momentum"], params["max_momentum"]) == (0.85, 0.95)


def test_without_a_momentum_none_is_searched() -> None:
    assert not [name for name in Cyclic.space(setting(momentum="none")) if "momentum" in name]
