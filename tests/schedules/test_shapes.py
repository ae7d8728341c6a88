"""The curves against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clrsearch.schedules.pieces import Cycles, Geometric, Piece, Scale, pieces_before, stairs
from clrsearch.schedules.shapes import (
    cosine,
    exponential,
    linear,
    one_minus_sqrt,
    polynomial,
    progress,
    values,
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


def test_a_joint_belongs_to_the_later_piece_and_the_last_one_holds_its_end() -> None:
    pieces = (
        Piece(begin=0, until=2, start=1.0, end=3.0),
        Piece(begin=2, until=4, start=8.0, end=4.0),
    )
    assert values(pieces, np.arange(7.0)).tolist() == [1, 2, 8, 6, 4, 4, 4]


def test_a_geometric_sequence_falls_at_every_step_or_in_stairs() -> None:
    smooth, stepped = Geometric(begin=1, gamma=0.5), Geometric(begin=1, gamma=0.5, every=2)
    assert values(smooth, np.arange(1.0, 5.0)).tolist() == [1, 0.5, 0.25, 0.125]
    assert values(stepped, np.arange(1.0, 7.0)).tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_sequence_without_an_end_becomes_pieces_that_end_at_the_horizon() -> None:
    smooth, stepped = Geometric(begin=1, gamma=0.5), Geometric(begin=1, gamma=0.5, every=2)
    assert pieces_before(4, smooth) == (
        Piece(begin=1, until=4.0, start=1.0, end=0.125, shape="exponential"),
    )
    flat = [
        Piece(begin=begin, until=until, start=height, end=height)
        for begin, until, height in [(1, 3, 1.0), (3, 5, 0.5), (5, 6, 0.25)]
    ]
    assert pieces_before(6, stepped) == tuple(flat)
    assert pieces_before(6, stairs((1, 3, 5, 9), 0.5)) == tuple(flat)


def test_cycles_go_from_foot_to_top_and_back() -> None:
    cycles = Cycles(foot=1.0, top=9.0, up=2, down=4, scale=Scale(of="cycle", gamma=0.5, since=1))
    found = values(cycles, np.arange(9.0))
    np.testing.assert_allclose(found, [1, 5, 9, 7, 5, 3, 1, 3, 5], rtol=1e-14)
