"""Scores as schedule, seed and rest: by hand, and against a regression on dummies."""

from __future__ import annotations

import numpy as np
import pytest

from clrsearch.search.additive_model import additive, shrunken

NONE = np.nan


def test_of_a_whole_table_it_is_the_means_and_the_residuals() -> None:
    table = np.array([[1.0, 2.0, 6.0], [2.0, 4.0, 3.0]])
    fit = additive(table)
    assert fit.means == pytest.approx([3.0, 3.0], rel=1e-12)
    assert fit.counts.tolist() == [3, 3]
    # the seeds' means are 1.5, 3, 4.5: residuals -0.5, -1, 1.5 and their opposites, 2 degrees
    assert (fit.deviation, fit.degrees) == (pytest.approx(np.sqrt(7 / 2)), 2)


def test_a_schedule_of_fewer_seeds_is_freed_of_their_effects() -> None:
    table = np.array([[1.0, 5.0, 9.0, 9.0], [2.0, 6.0, NONE, NONE]])
    fit = additive(table)
    assert fit.means == pytest.approx([6.0, 7.0])
    assert (fit.deviation, fit.degrees) == (pytest.approx(0.0, abs=1e-12), 1)


def test_with_gaps_it_is_the_regression_on_dummies() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(5, 7)) + 3 * rng.normal(size=7)
    table[rng.random(size=table.shape) < 0.3] = NONE
    table[0] = rng.normal(size=7)
    there = np.argwhere(~np.isnan(table))
    design = np.zeros((len(there), 12))
    design[np.arange(len(there)), there[:, 0]] = 1
    design[np.arange(len(there)), 5 + there[:, 1]] = 1
    scores = table[~np.isnan(table)]
    solved, *_ = np.linalg.lstsq(design, scores, rcond=None)
    fit = additive(table)
    assert fit.means == pytest.approx(solved[:5] + solved[5:].mean(), rel=1e-9)
    rest = scores - design @ solved
    assert fit.degrees == len(there) - 11
    assert fit.deviation == pytest.approx(np.sqrt(rest @ rest / fit.degrees), rel=1e-9)


def test_by_one_seed_no_deviation_is_known_and_nothing_is_shrunken() -> None:
    fit = additive(np.array([[1.0], [2.0]]))
    assert (fit.deviation, fit.degrees) == (None, 0)
    assert shrunken(fit).tolist() == fit.means.tolist()
    assert shrunken(additive(np.array([[1.0, 2.0]]))).tolist() == [1.5]


def test_means_are_shrunken_by_the_share_of_the_noise_in_their_spread() -> None:
    table = np.array([[1.0, 2.0, 6.0], [2.0, 4.0, 3.0]]) + np.array([[0.0], [4.0]])
    noise = 7 / 2 / 3
    between = 8 - noise  # the means are 3 and 7
    kept = between / (between + noise)
    assert shrunken(additive(table)) == pytest.approx([5 - 2 * kept, 5 + 2 * kept])


def test_means_that_chance_explains_are_one() -> None:
    table = np.array([[1.0, 2.0, 6.0], [2.0, 4.0, 3.0]])
    assert shrunken(additive(table)) == pytest.approx([3.0, 3.0])
    equal = additive(np.ones((3, 3)))
    assert shrunken(equal) == pytest.approx([1.0] * 3)


def test_who_has_fewer_seeds_is_shrunken_more() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 8)) + np.array([[0.0], [2.0], [4.0], [6.0]])
    table[[0, 3], 2:] = NONE
    fit = additive(table)
    moved = np.abs(shrunken(fit) - fit.means)
    assert moved[[0, 3]].min() > moved[[1, 2]].max()
