"""The pruner, on curves written by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clrsearch.search import Record, hopeless


def trial(*values: float, state: str = "complete") -> Record:
    return Record(
        number=0,
        slot=0,
        family="cyclic",
        params={},
        state=state,
        diverged=False,
        values=dict(enumerate(values, start=1)),
        metrics={},
        worker="w",
        device="cpu",
        seconds=0.0,
        error="",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        ended=None,
    )


NINE = [trial(*[level / 10] * 9) for level in range(1, 10)]  # flat curves, 0.1 to 0.9


def pruned(values, others=NINE, direction="minimize") -> bool:
    return hopeless(dict(enumerate(values, start=1)), others, epochs=9, direction=direction)


def test_the_worst_third_is_dropped() -> None:
    assert pruned([0.65] * 3)  # six of nine are better
    assert not pruned([0.55] * 3)  # five of nine are


def test_the_direction_is_minded() -> None:
    assert pruned([0.35] * 3, direction="maximize")
    assert not pruned([0.45] * 3, direction="maximize")
    assert not pruned([0.95] * 3, direction="maximize")


def test_never_before_a_third_of_the_horizon() -> None:
    assert not pruned([5.0, 5.0])
    assert pruned([5.0, 5.0, 5.0])


def test_never_at_the_last_epoch() -> None:
    assert pruned([5.0] * 8)
    assert not pruned([5.0] * 9)


def test_never_with_fewer_than_eight_to_compare_with() -> None:
    assert pruned([5.0] * 3, NINE[:8])
    assert not pruned([5.0] * 3, NINE[:7])


def test_a_rise_with_the_rate_is_forgiven() -> None:
    assert not pruned([0.9, 0.15, 5.0, 5.0])


def test_others_are_judged_by_their_best_so_far_too() -> None:
    dipped = [trial(0.9, 0.2, 9.0, 9.0) for _ in range(9)]
    assert pruned([0.9, 0.3, 0.3], dipped)
    assert not pruned([0.9, 0.1, 9.0], dipped)


def test_what_others_reach_later_does_not_count() -> None:
    late = [trial(0.9, 0.9, 0.9, 0.1, 0.1) for _ in range(9)]
    assert not pruned([0.8] * 3, late)


def test_those_pruned_before_count_as_worse() -> None:
    gone = [trial(0.9, 0.9, 0.9, state="pruned")] * 9
    assert pruned([0.95] * 4, NINE)
    assert not pruned([0.95] * 4, NINE + gone)  # nine of eighteen are better


def test_those_on_their_way_do_not_count_yet() -> None:
    running = [trial(0.1, 0.1, state="running")] * 9
    assert not pruned([5.0] * 3, running)
    assert pruned([5.0] * 2 + [5.0], NINE + running)


@pytest.mark.parametrize("epochs", [4, 5, 30])
def test_a_third_is_of_any_horizon(epochs) -> None:
    others = [trial(*[0.1] * epochs)] * 8
    decided = [
        hopeless({e: 1.0 for e in range(1, epoch + 1)}, others, epochs=epochs, direction="minimize")
        for epoch in range(1, epochs + 1)
    ]
    assert decided == [epochs / 3 <= epoch < epochs for epoch in range(1, epochs + 1)]
