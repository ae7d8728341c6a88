"""Rates by hand: by literal arithmetic, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from clrsearch.errors import ScheduleError
from clrsearch.schedules import Manual, Setting, trace

FOUR = {"epochs": 4, "steps_per_epoch": 3}


def rates(schedule: Manual) -> list[float]:
    return trace(schedule, 12).rates[0].tolist()


def test_pieces_follow_on_each_other() -> None:
    schedule = Manual(rates=((2, 0.5), (1, 0.25), (1, 0.125)), **FOUR)
    assert rates(schedule) == [0.5] * 6 + [0.25] * 3 + [0.125] * 3


def test_pieces_may_name_their_epochs_and_need_not_be_whole() -> None:
    schedule = Manual(rates=(((0, 1.5), 0.5), (0.5, 0.25), ((2, 4), 0.125)), **FOUR)
    assert rates(schedule) == [0.5] * 5 + [0.25] + [0.125] * 6


def test_fractions_of_epochs_begin_at_their_steps_whatever_their_sum_is_rounded_to() -> None:
    schedule = Manual(
        rates=tuple((0.1, float(piece)) for piece in range(1, 41)), epochs=4, steps_per_epoch=10
    )
    assert trace(schedule, 40).rates[0].tolist() == list(range(1, 41))
    uneven = Manual(rates=((0.1, 1.0), (0.2, 0.5), (0.7, 0.25)), epochs=1, steps_per_epoch=10)
    assert trace(uneven, 10).rates[0].tolist() == [1.0] + [0.5] * 2 + [0.25] * 7
    thirds = Manual(rates=((1 / 3, 1.0), (1 / 3, 2.0), (1 / 3, 3.0)), epochs=1, steps_per_epoch=31)
    # 31/3 = 10.33 and 62/3 = 20.67: the steps from 11 and from 21 on
    assert trace(thirds, 31).rates[0].tolist() == [1.0] * 11 + [2.0] * 10 + [3.0] * 10


def test_a_function_gets_the_step_and_the_steps_per_epoch() -> None:
    schedule = Manual(
        rates="mine.py:rate", function=lambda step, per_epoch: 1 + step // per_epoch, **FOUR
    )
    assert rates(schedule) == [1.0] * 3 + [2.0] * 3 + [3.0] * 3 + [4.0] * 3


def test_behind_the_last_step_the_last_rate_stays() -> None:
    asked: list[int] = []

    def rate(step: int, per_epoch: int) -> float:
        asked.append(step)
        return 12 - step

    schedule = Manual(rates="mine.py:rate", function=rate, **FOUR)
    assert schedule.at(np.array([10.0, 11.0, 12.0, 99.0]))[0].tolist() == [2.0, 1.0, 1.0, 1.0]
    assert max(asked) == 11


def test_the_factor_is_on_all_rates() -> None:
    schedule = Manual(rates=((2, 0.5), (2, 0.25)), scale=0.5, **FOUR)
    assert rates(schedule) == [0.25] * 6 + [0.125] * 6


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((), "epochs 0 to 4 have no rate: the pieces cover 0 of 4"),
        (((3, 0.1),), "epochs 3 to 4 have no rate: the pieces cover 3 of 4"),
        (((3, 0.1), (2, 0.1)), "the pieces extend to epoch 5, but there are only 4"),
        ((((0, 2), 0.1), ((3, 4), 0.1)), "epochs 2 to 3, before piece 2, have no rate"),
        ((((1, 4), 0.1),), "epochs 0 to 1, before piece 1, have no rate"),
        (
            (((0, 3), 0.1), ((2, 4), 0.1)),
            "piece 2 begins at epoch 2 and overlaps the one before it, which ends at 3",
        ),
        (((0.1, 1.0), (3.9, 1.0)), None),
        (((0.1, 1.0), (0.1, 1.0), (3.8, 1.0)), "piece 2 is shorter than a step"),
        (((4, 0.0),), "the rate of piece 1 must be positive, not 0"),
        (((4, -0.1),), "the rate of piece 1 must be positive, not -0.1"),
        (((2, 0.1), (2, float("nan"))), "the rate of piece 2 must be positive, not nan"),
        (((0, 0.1), (4, 0.1)), "piece 1 must end after it begins, not at epoch 0"),
        ((((2, 1), 0.1), (3, 0.1)), "piece 1 must end after it begins, not at epoch 1"),
        (((float("nan"), 0.1),), "piece 1 must end after it begins, not at epoch nan"),
    ],
)
def test_pieces_that_do_not_fill_the_epochs_are_refused(pieces, message) -> None:
    if message is None:
        Manual(rates=pieces, **FOUR)
        return
    with pytest.raises(ScheduleError) as caught:
        Manual(rates=pieces, **FOUR)
    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [0, -0.5, float("nan"), float("inf"), "0.1", None, True, 1j])
def test_a_function_that_gives_no_positive_number_is_refused_with_the_step(wrong) -> None:
    with pytest.raises(ScheduleError) as caught:
        Manual(rates="mine.py:rate", function=lambda step, _: 0.1 if step < 7 else wrong, **FOUR)
    expected = f"mine.py:rate must return a positive number, not {wrong!r} at step 7"
    assert expected in str(caught.value)


@pytest.mark.parametrize("right", [1, np.float64(0.5), np.float32(0.5), np.int64(2)])
def test_numbers_of_numpy_are_numbers(right) -> None:
    schedule = Manual(rates="mine.py:rate", function=lambda *_: right, **FOUR)
    assert rates(schedule) == [float(right)] * 12


def test_a_function_that_has_not_been_loaded_says_so_only_when_it_is_needed() -> None:
    schedule = Manual(rates="mine.py:rate", **FOUR)
    with pytest.raises(ScheduleError, match=r"mine\.py:rate has not been loaded"):
        schedule.at(np.array([0.0]))


def test_without_rates_there_is_no_space() -> None:
    setting = Setting(epochs=4, steps_per_epoch=3, base_lr=0.1, momentum="none")
    with pytest.raises(ScheduleError, match="no rates are given: set manual = "):
        Manual.space(setting)
