"""What the recommended schedule is worth in epochs of the baseline."""

from __future__ import annotations

import pytest
from records import make_record

from clrsearch.results.confirmation import _reached


def by_seed(*curves: list[float], **states: str):
    return {
        seed: make_record(*curve, state=states.get(f"seed{seed}", "complete"))
        for seed, curve in enumerate(curves, start=1)
    }


BASELINE = by_seed([0.9, 0.7, 0.6, 0.5], [0.9, 0.8, 0.7, 0.7])  # ends at 0.6


@pytest.mark.parametrize(
    ("curve", "reached"),
    [
        ([0.9, 0.6, 0.5, 0.4], 2),
        ([0.5, 0.7, 0.6, 0.4], 3),  # what it loses again does not count
        ([0.5, 0.5, 0.5, 0.61], None),
        ([0.5, 0.5, 0.5, 0.6], 1),
        ([0.9, 0.9, 0.9, 0.5], 4),
    ],
)
def test_from_which_epoch_on_it_is_as_good_as_the_other_is_in_the_end(curve, reached) -> None:
    assert _reached(by_seed(curve, curve), BASELINE, "minimize") == reached


def test_the_mean_of_the_seeds_that_both_have_counts() -> None:
    chosen = by_seed([0.8, 0.4, 0.4, 0.4], [0.8, 0.75, 0.7, 0.6], [9.0, 9.0, 9.0, 9.0])
    assert _reached(chosen, BASELINE, "minimize") == 2
    gone = by_seed([0.8, 0.4, 0.4, 0.4], [0.8, 0.75, 0.7, 0.6], seed1="pruned")
    assert _reached(gone, BASELINE, "minimize") == 3
    assert _reached({}, BASELINE, "minimize") is None


def test_upwards_more_is_better() -> None:
    assert _reached(by_seed([0.1, 0.7, 0.8]), by_seed([0.5, 0.6, 0.7]), "maximize") == 2
