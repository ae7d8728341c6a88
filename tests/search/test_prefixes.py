"""Where schedules part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clrsearch.schedules import Constant, Cosine, MultiStep, Trace, WarmupStableDecay, trace
from clrsearch.search.prefixes import held, parting_intervals

ENDS = (4, 8, 12)


def of(*rates: float, momenta=None) -> Trace:
    return Trace(rates=np.array([rates]), momenta=None if momenta is None else np.array([momenta]))


ONES = of(*[1.0] * 12)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (of(*[1.0] * 7, *[0.5] * 5), {1}),
        (of(*[1.0] * 8, *[0.5] * 4), {2}),
        (of(*[1.0] * 11, 0.5), {2}),
        (of(*[1.0] * 3, *[0.5] * 9), set()),
        (of(*[1.0] * 12), set()),
        (of(*[1.0] * 12, momenta=[0.9] * 12), set()),
    ],
)
def test_two_traces_part_at_the_end_of_the_last_interval_that_is_the_same(other, expected) -> None:
    assert (
        parting_intervals(ONES, [other], ENDS) == parting_intervals(other, [ONES], ENDS) == expected
    )


def test_each_of_several_parts_where_it_does() -> None:
    others = [of(*[1.0] * 4, *[0.1] * 8), of(*[1.0] * 9, *[0.1] * 3), of(*[0.1] * 12)]
    assert parting_intervals(ONES, others, ENDS) == {1, 2}


def test_momenta_part_traces_as_well() -> None:
    one = of(*[1.0] * 12, momenta=[0.9] * 12)
    other = of(*[1.0] * 12, momenta=[0.9] * 5 + [0.8] * 7)
    assert parting_intervals(one, [other], ENDS) == {1}


def test_a_difference_in_any_group_counts() -> None:
    rates = np.ones((2, 12))
    other = rates.copy()
    other[1, 8:] = 0.5
    both = (Trace(rates=each, momenta=None) for each in (rates, other))
    assert parting_intervals(next(both), both, ENDS) == {2}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(lr=0.1), {1, 2, 3, 4}),
        (MultiStep(lr=0.1, milestones=(30,), gamma=0.1), {1, 2, 3}),
        (MultiStep(lr=0.1, milestones=(29,), gamma=0.1), {1, 2}),
        (WarmupStableDecay(lr=0.1, horizon=50, decay=20, warmup=12), {2, 3}),
        (WarmupStableDecay(lr=0.1, horizon=50, decay=50), set()),
        (Cosine(lr=0.1, horizon=50), set()),
    ],
)
def test_a_rate_is_held_from_its_peak_to_its_fall(schedule, expected) -> None:
    assert held(trace(schedule, 50), (10, 20, 30, 40, 50)) == expected


def test_schedule_free_shares_no_beginning() -> None:
    free = replace(ONES, averaging=0.9)
    assert parting_intervals(free, [ONES, replace(ONES, averaging=0.95)], ENDS) == set()
    assert parting_intervals(ONES, [free], ENDS) == set()
    assert held(free, ENDS) == set()
    assert held(ONES, ENDS)
