"""Who is run again on fresh seeds."""

from __future__ import annotations

import pytest
from records import make_record

from clrsearch.errors import StudyError
from clrsearch.search import finalists


def by_values(record) -> int:
    """Numbers of traces, as if other values always had another."""
    return hash((record.family, *record.params.items()))


def numbers(records) -> list[int]:
    return [record.number for record in records]


SEARCHED = [
    make_record(0.5, number=0, family="constant", params={"lr": 0.1}),
    make_record(0.4, number=1, family="cyclic", params={"max_lr": 0.1}),
    make_record(0.3, number=2, family="cyclic", params={"max_lr": 0.2}),
    make_record(0.2, number=3, family="cyclic", params={"max_lr": 0.3}),
    make_record(0.6, number=4, family="constant", params={"lr": 0.2}),
    make_record(0.1, number=5, family="cosine", state="pruned"),
    make_record(0.7, number=6, family="cosine", params={"peak_lr": 0.2}),
]


@pytest.mark.parametrize(
    ("top", "expected"), [(1, [3, 0, 6]), (2, [3, 0, 6]), (3, [3, 2, 0, 6]), (9, [3, 2, 1, 0, 6])]
)
def test_the_best_of_each_family_then_the_next_best(top, expected) -> None:
    found = finalists(
        SEARCHED, top=top, baseline="constant", trace_of=by_values, direction="minimize"
    )
    assert numbers(found) == expected


def test_upwards_the_largest_is_best() -> None:
    found = finalists(
        SEARCHED, top=1, baseline="constant", trace_of=by_values, direction="maximize"
    )
    assert numbers(found) == [6, 4, 1]


def test_no_schedule_is_confirmed_twice() -> None:
    twice = [*SEARCHED, make_record(0.2, number=7, family="cyclic", params={"max_lr": 0.3})]
    found = finalists(twice, top=3, baseline="constant", trace_of=by_values, direction="minimize")
    assert numbers(found) == [3, 2, 0, 6]


def test_schedules_with_equal_traces_are_confirmed_once() -> None:
    traces = {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 6: 2}
    found = finalists(
        SEARCHED,
        top=3,
        baseline="constant",
        direction="minimize",
        trace_of=lambda record: traces[record.number],
    )
    assert numbers(found) == [3, 1, 0]


def test_without_a_complete_trial_there_is_no_finalist() -> None:
    with pytest.raises(StudyError, match="no trial is complete"):
        finalists(
            [SEARCHED[5]], top=3, baseline="constant", trace_of=by_values, direction="minimize"
        )


EXPECTED = {0: 0.40, 1: 0.22, 2: 0.20, 3: 0.24, 4: 0.41, 6: 0.30}


def by_expectation(top, deviation, expected=EXPECTED) -> list[int]:
    return numbers(
        finalists(
            SEARCHED,
            top=top,
            baseline="constant",
            trace_of=by_values,
            direction="minimize",
            expected=expected,
            deviation=dict.fromkeys(expected, deviation),
        )
    )


@pytest.mark.parametrize(
    ("top", "deviation", "expected"),
    [
        (5, 0.03, [2, 1, 3, 0]),  # within 0.085 of the best, and the baseline
        (5, 0.04, [2, 1, 3, 6, 0]),
        (2, 0.04, [2, 6, 0]),  # the best of each family before the next best
        (1, 0.04, [2, 0]),
        (5, 0.005, [2, 0]),
        (5, 0.2, [2, 1, 3, 6, 0]),  # the best of the baseline alone
    ],
)
def test_those_that_are_credibly_the_best_by_what_is_expected(top, deviation, expected) -> None:
    assert by_expectation(top, deviation) == expected


def test_a_baseline_of_which_nothing_is_expected_is_confirmed_by_its_score() -> None:
    expected = {number: EXPECTED[number] for number in (1, 2, 3, 6)}
    assert by_expectation(5, 0.03, expected) == [2, 1, 3, 0]
    assert by_expectation(1, 0.03, {}) == [3, 0, 6]  # as without


def test_upwards_much_is_expected_of_the_best() -> None:
    found = finalists(
        SEARCHED,
        top=1,
        baseline="constant",
        trace_of=by_values,
        direction="maximize",
        expected=EXPECTED,
        deviation=dict.fromkeys(EXPECTED, 0.001),
    )
    assert numbers(found) == [4]


def test_of_schedules_that_are_alike_one_is_confirmed_but_each_familys_best_is() -> None:
    def near(one, other) -> bool:
        return {one.number, other.number} in ({2, 3}, {3, 6})

    found = finalists(
        SEARCHED,
        top=9,
        baseline="constant",
        trace_of=by_values,
        alike=near,
        direction="minimize",
    )
    assert numbers(found) == [3, 1, 0, 6]
