"""Lengths of runs in words."""

from __future__ import annotations

import pytest
from records import STEPS, UNEVEN, WITHIN

from clrsearch.results.formatting import length
from clrsearch.tasks import Spacing


@pytest.mark.parametrize(
    ("spacing", "batch_size", "said"),
    [
        (Spacing(epochs=4, steps_per_epoch=31), 32, "4 epochs of 31 batches of 32"),
        (Spacing(epochs=4, steps_per_epoch=31), None, "4 epochs of 31 steps"),
        (WITHIN, 8, "3 epochs of 11 batches of 8, validated every 5 steps"),
        (WITHIN, None, "3 epochs of 11 steps, validated every 5 steps"),
        (STEPS, 16, "50 steps in batches of 16, validated every 20"),
        (STEPS, None, "50 steps, validated every 20"),
        (UNEVEN, None, "4 epochs, 14 steps in all"),
    ],
)
def test_a_length_is_told_in_what_it_was_given_in(spacing, batch_size, said) -> None:
    assert length(spacing, batch_size) == said
