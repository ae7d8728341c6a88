"""What is read off the losses of a range test, on curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from clrsearch.schedules import Range
from clrsearch.search import read_range_test, smoothed

RATES = tuple(np.geomspace(1e-5, 1e2, 100).tolist())
INFINITY = float("inf")


def losses(fall_from: float, bottom: float, turn: float) -> tuple[float, ...]:
    """2 up to one rate, then down in log steps to 0.5, which holds; up to 20 behind ``turn``."""
    at = np.log10(RATES)
    place = np.clip((at - np.log10(fall_from)) / np.log10(bottom / fall_from), 0, 1)
    curve = 2.0 - 1.5 * place
    return tuple(np.where(at > np.log10(turn), 20.0, curve).tolist())


def noise(seed: int, size: float = 0.5) -> tuple[float, ...]:
    return tuple((2 + size * np.random.default_rng(seed).standard_normal(100)).tolist())


def read(training, validation=None):
    return read_range_test(RATES, (training,) * 3, (validation or training,) * 3)


def test_base_is_where_the_fall_begins_and_max_half_of_where_it_has_turned() -> None:
    found = read(losses(1e-3, 1e-1, 1.0))
    # 5 % of the way down in logarithms: 1e-3 x 100^0.05 = 1.26e-3, and the rate that follows
    assert 1.26e-3 <= found.base <= 1.26e-3 * 10 ** (2 * 7 / 99)
    # the last rate that is not above 1.0 is 10^(-5 + 7 x 70 / 99)
    assert found.maximum == pytest.approx(10 ** (-5 + 7 * 70 / 99) / 2, rel=1e-9)
    assert found.sentence.startswith("The validation loss starts to fall at a rate of 0.001")


def test_the_loss_that_bears_more_says_where_it_has_turned() -> None:
    early, late = losses(1e-3, 1e-1, 0.3), losses(1e-3, 1e-1, 3.0)
    assert read(late, early).maximum == read(early, late).maximum == read(late).maximum
    assert read(early).maximum < read(late).maximum / 5


def test_the_validation_loss_says_where_the_fall_begins() -> None:
    early, late = losses(1e-4, 1e-1, 1.0), losses(1e-2, 1e-1, 1.0)
    assert read(early, late).base == read(late).base > 50 * read(early).base


def test_a_curve_that_ends_has_turned_there() -> None:
    whole = losses(1e-3, 1e-1, 1.0)
    cut = tuple(loss for loss, rate in zip(whole, RATES, strict=True) if rate <= 1.0)
    assert read(cut).maximum == read(whole).maximum


def test_one_seed_that_diverges_early_does_not_decide() -> None:
    whole = losses(1e-3, 1e-1, 1.0)
    found = read_range_test(RATES, (whole, whole, whole[:5]), (whole[:5], whole, whole))
    assert (found.base, found.maximum) == (read(whole).base, read(whole).maximum)


def test_a_loss_that_never_turns_has_no_max() -> None:
    found = read(losses(1e-3, 1e-1, INFINITY))
    assert found.maximum is None
    assert "at 1e+02, the highest rate tried, the loss has not risen again" in found.sentence
    assert found.bounds(0.05) == Range(low=found.base, high=RATES[-1], log=True)


@pytest.mark.parametrize(
    "curve",
    [
        (2.0,) * 100,
        tuple(np.linspace(2.0, 1.985, 100).tolist()),  # a fall of 0.75 %
        (2.0,) * 70 + (20.0,) * 30,
        tuple(np.linspace(2.0, 5.0, 100).tolist()),
    ],
    ids=["constant", "hardly", "only up", "rising"],
)
def test_a_flat_loss_proposes_nothing(curve) -> None:
    found = read(curve)
    assert (found.base, found.maximum) == (None, None)
    assert found.bounds(0.05) is None
    assert "is flat" in found.sentence and "no rates are proposed" in found.sentence


def test_a_loss_that_diverges_at_once_says_so() -> None:
    for curve in ((), (2.0,) * 3):
        found = read(curve)
        assert found.bounds(0.05) is None
        assert found.sentence == (
            "The loss diverges even at 1e-05, the lowest rate tried; no rates are proposed."
        )


def test_noise_alone_proposes_nothing() -> None:
    named = 0
    for seed in range(200):
        curves = tuple(noise(3 * seed + index) for index in range(3))
        named += read_range_test(RATES, curves, curves).base is not None
    assert named <= 2


def test_a_fall_is_seen_through_noise() -> None:
    clean = np.array(losses(1e-3, 1e-1, 1.0))
    for seed in range(50):
        curves = tuple(
            tuple((clean + np.array(noise(3 * seed + index, 0.1)) - 2).tolist())
            for index in range(3)
        )
        found = read_range_test(RATES, curves, curves)
        assert 5e-4 < found.base < 4e-3
        assert 0.3 < found.maximum < 0.7


def test_the_tasks_own_rate_is_always_among_the_bounds() -> None:
    found = read(losses(1e-3, 1e-1, 1.0))
    assert found.bounds(0.05) == Range(low=found.base, high=found.maximum, log=True)
    assert found.bounds(1e-5) == Range(low=1e-5, high=found.maximum, log=True)
    assert found.bounds(7.0) == Range(low=found.base, high=7.0, log=True)


def test_smoothing_is_the_running_median_of_the_seeds_median() -> None:
    first, second, third = (1.0, 2.0, 9.0, 4.0, 5.0, 6.0), (0.0,) * 6, (10.0, 10.0, 10.0)
    # the medians over the seeds are 1 2 9 4 5 6: where the third has ended it counts as infinite
    assert smoothed((first, second, third), 6).tolist() == [2.0, 3.0, 4.0, 5.0, 5.5, 5.0]


def test_it_survives_the_database_as_it_is() -> None:
    found = read(losses(1e-3, 1e-1, 1.0))
    assert type(found).model_validate_json(found.model_dump_json()) == found
