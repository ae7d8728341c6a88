"""The pruner, on curves written by hand."""

from __future__ import annotations

import pytest
from records import make_record

from clrsearch.search import hopeless

NINE = [make_record(*[level / 10] * 9) for level in range(1, 10)]  # flat curves, 0.1 to 0.9


FLAT = [0.1] * 9
CYCLES = [0.4, 0.9, 0.5, 0.2, 0.5, 0.9, 0.5, 0.2, 0.5]  # rates; troughs at epochs 4 and 8


def pruned(values, others=NINE, direction="minimize", rates=FLAT) -> bool:
    return hopeless(dict(enumerate(values, start=1)), others, rates, direction=direction)


def test_the_worst_third_is_dropped() -> None:
    assert pruned([0.65] * 5)  # six of nine are better
    assert not pruned([0.55] * 5)  # five of nine are


def test_a_trial_is_judged_at_its_troughs_alone() -> None:
    decided = [pruned([5.0] * epoch, rates=CYCLES) for epoch in range(1, 10)]
    assert [epoch for epoch in range(1, 10) if decided[epoch - 1]] == [4, 8]
    falling = [0.9 - 0.1 * epoch for epoch in range(9)]
    assert pruned([5.0] * 5, rates=falling)
    assert not any(pruned([5.0] * epoch, rates=falling[::-1]) for epoch in range(2, 10))


def test_the_direction_is_minded() -> None:
    assert pruned([0.35] * 5, direction="maximize")
    assert not pruned([0.45] * 5, direction="maximize")
    assert not pruned([0.95] * 5, direction="maximize")


def test_never_before_a_third_of_the_horizon() -> None:
    assert not pruned([5.0] * 2)
    assert pruned([5.0] * 3)


def test_never_at_the_last_epoch() -> None:
    assert pruned([5.0] * 8)
    assert not pruned([5.0] * 9)


def test_never_with_fewer_than_eight_to_compare_with() -> None:
    assert pruned([5.0] * 5, NINE[:8])
    assert not pruned([5.0] * 5, NINE[:7])


def test_a_rise_with_the_rate_is_forgiven() -> None:
    assert not pruned([0.9, 0.15, 5.0, 5.0, 5.0])


def test_others_are_judged_by_their_best_so_far_too() -> None:
    dipped = [make_record(0.9, 0.2, 9.0, 9.0, 9.0) for _ in range(9)]
    assert pruned([0.9, 0.3, 0.3, 0.3, 0.3], dipped)
    assert not pruned([0.9, 0.1, 9.0, 9.0, 9.0], dipped)


def test_what_others_reach_later_does_not_count() -> None:
    late = [make_record(*[0.9] * 5, 0.1, 0.1) for _ in range(9)]
    assert not pruned([0.8] * 5, late)
    assert pruned([0.8] * 6, late)


def test_those_pruned_before_count_as_worse() -> None:
    gone = [make_record(*[0.9] * 5, state="pruned")] * 9
    assert pruned([0.95] * 6, NINE)
    assert not pruned([0.95] * 6, NINE + gone)  # nine of eighteen are better


def test_those_on_their_way_do_not_count_yet() -> None:
    running = [make_record(0.1, 0.1, state="running")] * 9
    assert not pruned([5.0] * 5, running)
    assert pruned([5.0] * 5, NINE + running)


@pytest.mark.parametrize("epochs", [4, 5, 30])
def test_a_third_is_of_any_horizon(epochs) -> None:
    others = [make_record(*[0.1] * epochs)] * 8
    decided = [
        pruned([1.0] * epoch, others, rates=[0.1] * epochs) for epoch in range(1, epochs + 1)
    ]
    assert decided == [epochs / 3 <= epoch < epochs for epoch in range(1, epochs + 1)]
