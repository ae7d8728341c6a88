"""What a schedule that has not been run would score: a Gaussian process over schedules' features.

The score of schedule x from seed s is level + seed_s + f(x) + h_s(x) + noise, all of them Gaussian:
f is what the search is after; h_s is what a schedule owes to its seed, alike for schedules that are
alike. See C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning" (2006),
chapters 2 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats
from scipy.spatial.distance import cdist
from threadpoolctl import ThreadpoolController

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

FEWEST = 3  # complete runs that a surface can be fitted to
WORST = 2.0  # the score, after squashing, of a run that diverged, and the highest that there is
LOCAL = 0.6  # h's lengths relative to f's
FITTED = 200  # runs at most by which the scales are chosen
JITTER = 1e-8
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # on the scales that the data may change
DOUBT = math.log(4)  # standard deviation of the prior on the logarithm of each of these factors

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARIES = ThreadpoolController()


def one_thread(compute: Callable[P, T]) -> Callable[P, T]:
    """Let a function compute with one BLAS thread.

    With a worker for each core, more threads for such small matrices wait for each other: seconds
    in place of a tenth of one.
    """
    limited: Callable[P, T] = _LIBRARIES.wrap(limits=1, user_api="blas")(compute)
    return limited


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """The standard deviations of the parts of a score, where the better half spreads over one.

    The usual ones are round numbers near the most likely on recorded tasks (``benchmarks/replay``).
    """

    level: float = 1.0
    surface: float = 1.2
    local: float = 0.3
    seed: float = 0.04
    noise: float = 0.2

    def louder(self, factor: float) -> Scales:
        """With that many times the noise, and as much more of what a schedule owes to its seed."""
        return replace(self, noise=factor * self.noise, local=factor * self.local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Some runs: their ``points``, (runs, features), the ``seeds`` they began from, (runs,)."""

    points: Array
    seeds: Numbers

    @classmethod
    def none(cls, features: int) -> Runs:
        """No runs."""
        return cls(points=np.empty((0, features)), seeds=np.empty(0, dtype=np.int64))

    def then(self, others: Runs) -> Runs:
        """These and the others behind them."""
        return Runs(
            points=np.vstack([self.points, others.points]),
            seeds=np.concatenate([self.seeds, others.seeds]),
        )

    def __len__(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Squash:
    """Scores on the scale that the surface is fitted on.

    The median is 0 and the best tenth begins at -1; the worse half is drawn together by a
    logarithm, for how bad the bad ones are says nothing of the good ones.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, scores: Array) -> Squash:
        """The one for these scores, less is better, of which those that diverged are NaN."""
        finite = scores[np.isfinite(scores)]
        median, low = np.quantile(finite, [0.5, 0.1])
        spread = float(median - low) or float(finite.std())
        return cls(median=float(median), spread=spread or 1.0)

    def __call__(self, scores: Array) -> Array:
        relative = (scores - self.median) / self.spread
        squashed = np.where(relative > 0, np.log1p(np.maximum(relative, 0.0)), relative)
        return np.where(np.isfinite(scores), np.minimum(squashed, WORST), WORST)

    def undo(self, squashed: Array) -> Array:
        """Scores again."""
        relative = np.where(squashed > 0, np.expm1(np.maximum(squashed, 0.0)), squashed)
        return self.median + self.spread * relative


class Surrogate:
    """The posterior over the surface f, given what some runs have scored."""

    @one_thread
    def __init__(
        self,
        told: Runs,
        scores: Array,
        *,
        pruned: Runs | None = None,
        running: Runs | None = None,
    ) -> None:
        """``scores``, less is better, are those of the runs ``told``; NaN where one diverged.

        ``pruned`` runs count as censored: they would have ended at the median or worse, nobody
        knows by how much. ``running`` ones tell nothing yet, but their points are taken.

        Raises:
            SurrogateError: fewer than three runs have a score, or no surface fits them.
        """
        if np.isfinite(scores).sum() < FEWEST:
            raise SurrogateError(f"fewer than {FEWEST} trials are complete")
        nothing = Runs.none(told.points.shape[1])
        pruned, running = pruned or nothing, running or nothing
        self.squash = Squash.of(scores)
        self._targets = self.squash(scores)
        self.scales = _scales(told, self._targets)
        self._doubts = np.zeros(len(told))  # variances on top of the noise
        self._condition(told, nothing)
        if len(pruned):
            believed, doubts = self._censored(pruned)
            self._targets = np.concatenate([self._targets, believed])
            self._doubts = np.concatenate([self._doubts, doubts])
        self._condition(told.then(pruned), running)

    @one_thread
    def mean(self, points: Array) -> Array:
        """The expected score of each point, over seeds, in the scores' own units."""
        return self.squash.undo(self._mean(points))

    @one_thread
    def deviation(self, points: Array) -> Array:
        """How unsure that is: one standard deviation, in the scores' own units."""
        mean, deviation = self._mean(points), np.sqrt(np.diag(self._covariance(points)))
        return (self.squash.undo(mean + deviation) - self.squash.undo(mean - deviation)) / 2

    @one_thread
    def draw(self, points: Array, generator: np.random.Generator) -> Array:
        """One surface drawn from the posterior, at the points; squashed, so only ranks count."""
        root = _root(self._covariance(points))
        return self._mean(points) + root @ generator.standard_normal(len(points))

    @property
    def noise(self) -> float:
        """The standard deviation of one run's score that neither schedule nor seed explains."""
        return self.scales.noise * self.squash.spread

    def _condition(self, told: Runs, running: Runs) -> None:
        """Take ``told`` with their targets for given, and ``running`` as points that will be."""
        runs = told.then(running)
        doubts = np.concatenate([self._doubts, np.zeros(len(running))])
        self._points = runs.points
        self._root = _root(_covariance(runs, self.scales) + np.diag(self.scales.noise**2 + doubts))
        known = self._root[: len(told), : len(told)]
        self._weights = linalg.cho_solve((known, True), self._targets)

    def _mean(self, points: Array) -> Array:
        known = self._points[: len(self._weights)]
        return np.asarray(self._across(points, known) @ self._weights)

    def _covariance(self, points: Array) -> Array:
        half = linalg.solve_triangular(self._root, self._across(self._points, points), lower=True)
        return np.asarray(self._across(points, points) - half.T @ half)

    def _across(self, points: Array, others: Array) -> Array:
        """Prior covariance of level + f between points."""
        surface = self.scales.surface**2 * matern(cdist(points, others))
        return np.asarray(self.scales.level**2 + surface)

    def _censored(self, pruned: Runs) -> tuple[Array, Array]:
        """What pruned runs would have scored, at the median or above: means and variances."""
        variance = np.diag(self._covariance(pruned.points)) + self.scales.noise**2
        mean, deviation = self._mean(pruned.points), np.sqrt(np.maximum(variance, JITTER))
        above = stats.truncnorm(-mean / deviation, np.inf, loc=mean, scale=deviation)
        return np.minimum(above.mean(), WORST), above.var()


class SurrogateError(ValueError):
    """No surface can be fitted to these runs."""


def matern(distances: Array) -> Array:
    """Matérn's correlation of smoothness 5/2 (Rasmussen and Williams, equation 4.17)."""
    scaled = math.sqrt(5) * distances
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _covariance(runs: Runs, scales: Scales) -> Array:
    """Of what runs score, without the noise: (runs, runs)."""
    distances = cdist(runs.points, runs.points)
    alike = runs.seeds[:, None] == runs.seeds
    owed = scales.seed**2 + scales.local**2 * matern(distances / LOCAL)
    return np.asarray(scales.level**2 + scales.surface**2 * matern(distances) + alike * owed)


def _root(covariance: Array) -> Array:
    """The lower triangular root of a covariance."""
    jittered = covariance + JITTER * np.eye(len(covariance))
    for more in (0.0, 1e-6, 1e-4):
        try:
            return np.asarray(linalg.cholesky(jittered + more * np.eye(len(jittered)), lower=True))
        except linalg.LinAlgError:
            continue
        except ValueError:  # not finite
            break
    raise SurrogateError("the covariance of the trials' scores is singular")


def _scales(told: Runs, targets: Array) -> Scales:
    """The scales with the highest posterior density, on a grid around the usual ones.

    One after the other: the noise, the seeds' own effect, the surface; each is found again.
    """
    some = np.linspace(0, len(told) - 1, min(len(told), FITTED)).astype(int)
    runs = Runs(points=told.points[some], seeds=told.seeds[some])
    distances = cdist(runs.points, runs.points)
    parts = (matern(distances), matern(distances / LOCAL), runs.seeds[:, None] == runs.seeds)

    def density(noise: float, seed: float, surface: float) -> float:
        usual = Scales()
        scales = replace(
            usual.louder(noise), seed=seed * usual.seed, surface=surface * usual.surface
        )
        prior = -sum(math.log(each) ** 2 for each in (noise, seed, surface)) / (2 * DOUBT**2)
        return _evidence(parts, targets[some], scales) + prior

    chosen = [1.0, 1.0, 1.0]
    for place in (0, 1, 2, 0):
        tried = [[*chosen[:place], factor, *chosen[place + 1 :]] for factor in FACTORS]
        chosen = max(tried, key=lambda factors: density(*factors))
    usual = Scales()
    noise, seed, surface = chosen
    return replace(usual.louder(noise), seed=seed * usual.seed, surface=surface * usual.surface)


def _evidence(parts: Sequence[Array], targets: Array, scales: Scales) -> float:
    """The logarithm of the marginal likelihood (Rasmussen and Williams, equation 5.8)."""
    surface, local, alike = parts
    covariance = scales.level**2 + scales.surface**2 * surface
    covariance = covariance + alike * (scales.seed**2 + scales.local**2 * local)
    covariance[np.diag_indices_from(covariance)] += scales.noise**2
    root = _root(covariance)
    half = linalg.solve_triangular(root, targets, lower=True)
    return -0.5 * float(half @ half) - float(np.log(np.diag(root)).sum())
