"""The curves against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clrsearch.schedules.shapes import (
    cosine,
    exponential,
    linear,
    one_minus_sqrt,
    polynomial,
    progress,
    warm_up,
)

QUARTERS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
ROOT = 0.5**0.5  # the cosine of an eighth of a turn


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda p: linear(9.0, 1.0, p), [9, 7, 5, 3, 1]),
        (lambda p: linear(1.0, 9.0, p), [1, 3, 5, 7, 9]),
        (lambda p: cosine(9.0, 1.0, p), [9, 5 + 4 * ROOT, 5, 5 - 4 * ROOT, 1]),
        (lambda p: cosine(1.0, 9.0, p), [1, 5 - 4 * ROOT, 5, 5 + 4 * ROOT, 9]),
        (lambda p: exponential(16.0, 1.0, p), [16, 8, 4, 2, 1]),
        (lambda p: polynomial(17.0, 1.0, p, 2.0), [17, 10, 5, 2, 1]),
        (lambda p: polynomial(17.0, 1.0, p, 1.0), [17, 13, 9, 5, 1]),
        (lambda p: one_minus_sqrt(5.0, 1.0, p), [5, 3, 5 - 4 * ROOT, 5 - 2 * 3**0.5, 1]),
    ],
)
def test_each_goes_from_start_to_end(curve, expected) -> None:
    np.testing.assert_allclose(curve(QUARTERS), expected, rtol=1e-14)


def test_progress_is_held_at_its_ends() -> None:
    steps = np.array([0.0, 2.0, 3.0, 4.0, 6.0, 7.0])
    assert progress(steps, 2.0, 6.0).tolist() == [0, 0, 0.25, 0.5, 1, 1]


def test_a_warm_up_reaches_1_after_its_length() -> None:
    assert warm_up(np.arange(4.0), 3.0).tolist() == [0.25, 0.5, 0.75, 1.0]
