"""The surface over schedules: against formulas worked out by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from clrsearch.search.surrogate import Runs, Scales, Squash, Surrogate, SurrogateError, matern

GENERATOR = np.random.default_rng(7)


def runs(points, seeds=None) -> Runs:
    points = np.asarray(points, dtype=float)
    seeds = np.zeros(len(points), dtype=int) if seeds is None else np.asarray(seeds)
    return Runs(points=points, seeds=seeds)


def bowl(points, noise=0.0, generator=GENERATOR):
    """A surface with its lowest point at 0.3 in each coordinate."""
    return ((points - 0.3) ** 2).sum(axis=1) + noise * generator.standard_normal(len(points))


def test_the_better_half_is_kept_and_the_worse_half_drawn_together() -> None:
    scores = np.arange(21.0)  # median 10, best tenth at 2
    squash = Squash.of(scores)
    found = squash(np.array([10.0, 2.0, -6.0, 18.0, 1e9, math.nan]))
    assert found == pytest.approx([0.0, -1.0, -2.0, math.log(2), 2.0, 2.0])
    assert squash.undo(found[:4]) == pytest.approx([10.0, 2.0, -6.0, 18.0])


@pytest.mark.parametrize("scores", [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 3.0]])
def test_scores_that_are_all_alike_have_a_scale(scores) -> None:
    squash = Squash.of(np.array(scores))
    assert squash.spread > 0
    assert squash(np.array([1.0])) == pytest.approx([0.0])


def test_materns_correlation() -> None:
    distances = np.array([[0.0], [0.5], [2.0]])
    kernel = Matern(length_scale=1.0, nu=2.5)
    assert matern(distances)[:, 0] == pytest.approx(kernel(distances, [[0.0]])[:, 0])


def test_without_seeds_it_is_a_gaussian_process_as_others_compute_it(monkeypatch) -> None:
    scales = Scales(level=0.8, surface=1.3, local=0.0, seed=0.0, noise=0.2)
    monkeypatch.setattr("clrsearch.search.surrogate._scales", lambda told, targets: scales)
    points, new = GENERATOR.random((12, 3)), GENERATOR.random((5, 3))
    scores = np.sort(bowl(points))
    found = Surrogate(runs(points, range(12)), scores)
    kernel = ConstantKernel(0.8**2) + ConstantKernel(1.3**2) * Matern(nu=2.5)
    known = GaussianProcessRegressor(kernel, alpha=0.2**2, optimizer=None)
    known.fit(points, found.squash(scores))
    mean, covariance = known.predict(new, return_cov=True)
    assert found.mean(new) == pytest.approx(found.squash.undo(mean), abs=1e-6)
    assert found._covariance(new) == pytest.approx(covariance, abs=1e-6)
    drawn = np.array([found.draw(new, np.random.default_rng(seed)) for seed in range(4000)])
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.05)


def test_a_seeds_own_effect_is_taken_out() -> None:
    generator = np.random.default_rng(1)
    points, seeds = generator.random((60, 2)), np.arange(60) % 4
    shift = np.array([0.0, 0.4, -0.4, 0.8])
    scores = bowl(points, 0.005, generator) + shift[seeds]
    new = generator.random((40, 2))
    told = Surrogate(runs(points, seeds), scores).mean(new)
    confused = Surrogate(runs(points, range(60)), scores).mean(new)
    truth = bowl(new)
    assert stats.spearmanr(told, truth)[0] > 0.97
    assert stats.spearmanr(told, truth)[0] > stats.spearmanr(confused, truth)[0]


def test_it_finds_how_noisy_scores_are() -> None:
    generator = np.random.default_rng(2)
    points, seeds = generator.random((120, 2)), np.arange(120) % 4
    quiet, loud = (
        Surrogate(runs(points, seeds), bowl(points, noise, generator)) for noise in (0.005, 0.3)
    )
    assert loud.noise == pytest.approx(0.3, rel=0.6)
    assert quiet.noise < 0.05


def test_one_knows_less_far_from_what_has_been_run() -> None:
    points = GENERATOR.random((20, 2))
    found = Surrogate(runs(points), bowl(points))
    near, far = found.deviation(np.array([[0.5, 0.5], [3.0, 3.0]]))
    assert near < far / 3


def test_a_running_trial_is_known_soon_but_changes_no_expectation() -> None:
    points, there = GENERATOR.random((20, 2)), np.array([[3.0, 3.0]])
    scores = bowl(points)
    without = Surrogate(runs(points), scores)
    beside = Surrogate(runs(points), scores, running=runs(there, [1]))
    assert beside.mean(there) == pytest.approx(without.mean(there))
    assert beside.deviation(there)[0] < without.deviation(there)[0] / 2


def test_a_pruned_trial_is_no_good_one_but_nobody_knows_how_bad() -> None:
    points, good = GENERATOR.random((30, 2)), np.array([[0.3, 0.3]])
    scores = bowl(points)
    without = Surrogate(runs(points), scores)
    pruned = Surrogate(runs(points), scores, pruned=runs(good, [2]))
    assert pruned.mean(good)[0] > without.mean(good)[0]
    bad = np.array([[1.5, 1.5]])
    pruned = Surrogate(runs(points), scores, pruned=runs(bad, [2]))
    assert pruned.mean(bad) == pytest.approx(without.mean(bad), rel=0.35)


def test_diverged_trials_are_shunned() -> None:
    points = GENERATOR.random((40, 2))
    scores = np.where(points[:, 0] > 0.6, math.nan, bowl(points))
    found = Surrogate(runs(points), scores)
    safe, wild = found.mean(np.array([[0.3, 0.3], [0.9, 0.3]]))
    assert wild > safe + 2 * found.squash.spread


@pytest.mark.parametrize("scores", [[], [0.1, 0.2], [0.1, 0.2, math.nan, math.nan]])
def test_too_few_scores_are_refused(scores) -> None:
    points = GENERATOR.random((len(scores), 2))
    with pytest.raises(SurrogateError, match="fewer than 3 trials are complete"):
        Surrogate(runs(points), np.array(scores))


def test_points_that_are_no_numbers_are_refused() -> None:
    points = GENERATOR.random((6, 2))
    points[2, 1] = math.nan
    with pytest.raises(SurrogateError, match="singular"):
        Surrogate(runs(points), np.arange(6.0))


def test_the_same_schedule_many_times_is_no_trouble() -> None:
    points = np.repeat(GENERATOR.random((2, 2)), 10, axis=0)
    found = Surrogate(runs(points, np.arange(20) % 4), np.repeat([1.0, 2.0], 10))
    assert found.mean(points[[0, -1]]) == pytest.approx([1.0, 2.0], abs=0.1)


def earlier_surrogate(shape, generator=None) -> Surrogate:
    generator = generator or np.random.default_rng(3)
    points = generator.random((80, 2))
    scores = shape(points) + 0.01 * generator.standard_normal(80)
    return Surrogate(runs(points, np.arange(80) % 4), scores)


def far_bowl(points):
    """A surface with its lowest point at 0.9 in each coordinate."""
    return ((points - 0.9) ** 2).sum(axis=1)


def test_three_trials_are_enough_after_a_study_of_a_like_task_on_another_scale() -> None:
    generator = np.random.default_rng(4)
    points, new = generator.random((3, 2)), generator.random((100, 2))
    scores = 70 + 5 * bowl(points)
    found = Surrogate(runs(points), scores, earlier=[earlier_surrogate(bowl)])
    assert stats.spearmanr(found.mean(new), bowl(new))[0] > 0.97
    alone = Surrogate(runs(points), scores)
    assert stats.spearmanr(alone.mean(new), bowl(new))[0] < 0.9


def test_a_study_of_an_unlike_task_is_soon_ignored() -> None:
    generator = np.random.default_rng(5)
    new = generator.random((100, 2))
    trust, surface = [], []
    for count in (4, 12, 24):
        points = generator.random((count, 2))
        scores = bowl(points, 0.005, generator)
        found = Surrogate(runs(points), scores, earlier=[earlier_surrogate(far_bowl)])
        trust.append(found.scales.trusts[0])
        surface.append(found.scales.surface)
    assert stats.spearmanr(found.mean(new), bowl(new))[0] > 0.98
    assert trust[-1] <= 0.25 or surface[-1] >= 1.0
    beside = Surrogate(
        runs(points), scores, earlier=[earlier_surrogate(far_bowl), earlier_surrogate(bowl)]
    )
    assert beside.scales.trusts[0] < beside.scales.trusts[1]


def test_earlier_surfaces_are_what_is_expected_beforehand(monkeypatch) -> None:
    """What is left is a Gaussian process as others compute it."""
    points, new = GENERATOR.random((12, 3)), GENERATOR.random((5, 3))
    one, other = (Surrogate(runs(points), scores) for scores in (bowl(points), far_bowl(points)))
    scales = Scales(level=0.8, surface=1.3, local=0.0, seed=0.0, noise=0.2, trusts=(0.5, 2.0))
    monkeypatch.setattr("clrsearch.search.surrogate._scales", lambda told, targets, *each: scales)
    scores = np.sort(bowl(points))
    found = Surrogate(runs(points, range(12)), scores, earlier=[one, other])

    def expected(points):
        halves = (0.5, one), (2.0, other)
        return sum(trust * each.squash(each.mean(points)) for trust, each in halves)

    kernel = ConstantKernel(0.8**2) + ConstantKernel(1.3**2) * Matern(nu=2.5)
    known = GaussianProcessRegressor(kernel, alpha=0.2**2, optimizer=None)
    known.fit(points, found.squash(scores) - expected(points))
    mean, covariance = known.predict(new, return_cov=True)
    assert found.squash(found.mean(new)) == pytest.approx(mean + expected(new), abs=1e-6)
    assert found._covariance(new) == pytest.approx(covariance, abs=1e-6)


def test_the_expected_improvement_is_the_mean_gain_of_surfaces_drawn() -> None:
    generator = np.random.default_rng(3)
    points = generator.random((12, 2))
    found = Surrogate(runs(points, range(12)), bowl(points, 0.05, generator))
    new = np.array([[0.3, 0.3]])
    best = points[[int(np.argmin(found.mean(points)))]]
    drawn = np.array(
        [found.draw(np.vstack([best, new]), np.random.default_rng(seed)) for seed in range(4000)]
    )
    gain = np.maximum(drawn[:, 0] - drawn[:, 1], 0.0)
    deviation = math.hypot(found.scales.noise, found.scales.local)
    error = gain.std() / math.sqrt(len(gain)) / deviation
    assert found.improvement(new, points) == pytest.approx(gain.mean() / deviation, abs=4 * error)


def test_nothing_is_expected_to_improve_on_itself() -> None:
    points = np.random.default_rng(3).random((12, 2))
    found = Surrogate(runs(points, range(12)), bowl(points))
    best = points[[int(np.argmin(found.mean(points)))]]
    assert found.improvement(best, points) == pytest.approx(0.0, abs=1e-3)
