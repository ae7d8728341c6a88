"""Schedules as points: what a few numbers say of a curve."""

from __future__ import annotations

import numpy as np
import pytest
from facts import make_two_groups
from records import make_record

from clrsearch.search import build_space, load_plan
from clrsearch.search.trace_features import LENGTHS, Points, features

FACTS = make_two_groups()


def points(**changes) -> Points:
    return Points(build_space(load_plan(None, changes), FACTS))


def test_schedule_free_is_set_apart_from_the_same_rates() -> None:
    known = points(families=["constant", "schedule_free"])
    still = {"lr": 0.1}
    free = {"lr": 0.1, "beta": 0.9, "warmup_share": 0.0}
    constant, nine, ninety_eight = known.of(
        [
            ("constant", still),
            ("schedule_free", free),
            ("schedule_free", {**free, "beta": 0.98}),
        ]
    )
    assert known.features == len(LENGTHS) + 1
    assert np.linalg.norm(constant - nine) == pytest.approx(2.0)
    assert np.linalg.norm(nine - ninety_eight) == pytest.approx(0.4)
    plain = points(families=["constant"])
    assert plain.features == len(LENGTHS)
    assert plain.of([("constant", still)])[0] == pytest.approx(constant[:-1])


def test_a_constant_rate_has_the_features_of_one() -> None:
    (found,) = features(np.full((1, 160), 2.0), np.full((1, 160), 0.9))
    log = np.log(2.0)
    expected = [log] * 8 + [log, log, log, 0.5, 0.5 / 160, 0.0, 0.0]
    expected += [log - np.log(part) for part in (16, 8, 4, 2)]
    assert found == pytest.approx(expected)


def test_a_momentum_counts_as_the_rate_that_it_stands_for() -> None:
    rates, half = np.full((1, 160), 2.0), np.full((1, 160), 0.95)
    (found,) = features(rates, half)
    assert found[:8] == pytest.approx(np.log(4.0))  # 2 (1 - 0.9) / (1 - 0.95)
    assert found[14] == pytest.approx(0.5)  # 10 (0.95 - 0.9)


def test_a_line_down_to_nothing() -> None:
    steps = (np.arange(160) + 0.5) / 160
    (found,) = features((1 - steps)[None, :], np.full((1, 160), 0.9))
    assert np.exp(found[:8]) == pytest.approx(1 - (np.arange(8) + 0.5) / 8)
    assert np.exp(found[8]) == pytest.approx(1 / 40)  # the mean of the last twentieth
    assert np.exp(found[9]) == pytest.approx(1 - 0.5 / 160)
    assert np.exp(found[10]) == pytest.approx(0.5)
    assert found[11] == pytest.approx(1 / 3, abs=1e-4)  # the centroid of a triangle
    assert found[12] == pytest.approx(0.5 / 160)
    assert found[13] == 0
    assert np.exp(found[18]) == pytest.approx(0.5 - 1 / 8)  # the area up to the middle


def test_climbs_count_after_the_first_quarter_alone() -> None:
    rates = np.ones((1, 160))
    rates[0, :20] = 0.1
    assert features(rates, np.full((1, 160), 0.9))[0, 13] == 0
    rates[0, 80:90] = 0.1
    assert features(rates, np.full((1, 160), 0.9))[0, 13] == pytest.approx(np.log(10))


def test_a_rate_of_zero_is_a_point_too() -> None:
    assert np.isfinite(features(np.zeros((1, 160)), np.full((1, 160), 0.9))).all()


def test_points_are_relative_to_the_tasks_own_rate() -> None:
    (found,) = points().of([("constant", {"lr": 0.1})])
    assert found[:8] * LENGTHS[:8] == pytest.approx(np.log(2.0))


def test_the_same_schedule_by_two_families_is_one_point() -> None:
    line = {"lr": 0.1, "warmup_share": 0.1}
    one, other = points().of([("linear", line), ("polynomial", line | {"power": 1.0})])
    assert one == pytest.approx(other)


def test_factors_on_the_rates_of_groups_are_coordinates() -> None:
    found = points(**{"groups.head": [0.1, 10.0]})
    assert found.features == 20
    params = {"lr": 0.1, "groups.head": np.e}
    assert found.of([("constant", params)])[0, -1] == pytest.approx(1 / 5)


def test_no_schedules_are_no_points() -> None:
    assert points().of([]).shape == points().of_records([]).shape == (0, 19)


def test_a_trials_point_is_that_of_its_schedule() -> None:
    found = points()
    trial = make_record(1.0, number=3, family="constant", params={"lr": 0.2})
    for _ in range(2):
        assert found.of_records([trial]) == pytest.approx(found.of([("constant", {"lr": 0.2})]))
