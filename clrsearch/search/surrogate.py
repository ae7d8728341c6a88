"""Surrogate model of scores: a Gaussian process over schedule features.

The score of schedule x on seed s is level + seed_s + f(x) + h_s(x) + noise, all Gaussian: f is the
target of the search; h_s is the interaction of schedule and seed, correlated between similar
schedules. See C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning"
(2006), chapters 2 and 5.

With earlier studies, f(x) = sum of trust_k f_k(x) + d(x): f_k is the expected surface of the k-th
of them, with a level of its own, and d is the difference. How much to trust each, and the deviation
of d, are chosen by the marginal likelihood, so an unlike study is soon ignored.
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

FEWEST = 3  # minimum number of complete runs to fit a surface
WORST = 2.0  # squashed score of a diverged run, and the maximum of all scores
LOCAL = 0.6  # length scale of h relative to f's
FITTED = 200  # maximum number of runs used to fit the scales
JITTER = 1e-8
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # on the default scales; the data choose among them
TRUSTS = (1 / 16, 1 / 4, 1 / 2, 1.0, 2.0)  # factors on the trust in an earlier study
DOUBT = math.log(4)  # standard deviation of the prior on the logarithm of these factors
DIFFERENCE = 0.5  # default deviation of the surface where it is the difference to earlier ones

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARIES = ThreadpoolController()


def one_thread(compute: Callable[P, T]) -> Callable[P, T]:
    """Limit a function to one BLAS thread.

    With one worker per core, additional threads on such small matrices wait for each other: seconds
    instead of a tenth of a second.
    """
    limited: Callable[P, T] = _LIBRARIES.wrap(limits=1, user_api="blas")(compute)
    return limited


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Standard deviations of the components of a squashed score, whose better half spans about one.

    The defaults are round numbers near the most likely values on recorded tasks
    (``benchmarks/replay``). ``trusts`` are the weights of the surfaces of earlier studies.
    """

    level: float = 1.0
    surface: float = 1.2
    local: float = 0.3
    seed: float = 0.04
    noise: float = 0.2
    trusts: tuple[float, ...] = ()

    def louder(self, factor: float) -> Scales:
        """Multiply the noise and the schedule-seed interaction by ``factor``."""
        return replace(self, noise=factor * self.noise, local=factor * self.local)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs: their ``points``, (runs, features), and the ``seeds`` they started from, (runs,)."""

    points: Array
    seeds: Numbers

    @classmethod
    def none(cls, features: int) -> Runs:
        """No runs."""
        return cls(points=np.empty((0, features)), seeds=np.empty(0, dtype=np.int64))

    def then(self, others: Runs) -> Runs:
        """These runs followed by ``others``."""
        return Runs(
            points=np.vstack([self.points, others.points]),
            seeds=np.concatenate([self.seeds, others.seeds]),
        )

    def __len__(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Squash:
    """Transform of scores to the scale the surface is fitted on.

    The median maps to 0 and the best tenth starts at -1; the worse half is compressed by a
    logarithm, because how bad the bad ones are says nothing about the good ones.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, scores: Array) -> Squash:
        """Fit the transform to scores, lower is better, NaN for runs that diverged."""
        finite = scores[np.isfinite(scores)]
        median, low = np.quantile(finite, [0.5, 0.1])
        spread = float(median - low) or float(finite.std())
        return cls(median=float(median), spread=spread or 1.0)

    def __call__(self, scores: Array) -> Array:
        relative = (scores - self.median) / self.spread
        squashed = np.where(relative > 0, np.log1p(np.maximum(relative, 0.0)), relative)
        return np.where(np.isfinite(scores), np.minimum(squashed, WORST), WORST)

    def undo(self, squashed: Array) -> Array:
        """Invert the transform."""
        relative = np.where(squashed > 0, np.expm1(np.maximum(squashed, 0.0)), squashed)
        return self.median + self.spread * relative


class Surrogate:
    """The posterior over the surface f given the scores of some runs."""

    @one_thread
    def __init__(
        self,
        told: Runs,
        scores: Array,
        *,
        pruned: Runs | None = None,
        running: Runs | None = None,
        earlier: Sequence[Surrogate] = (),
    ) -> None:
        """Fit to the ``scores`` of the runs ``told``; lower is better, NaN for runs that diverged.

        ``pruned`` runs are treated as censored: they would have scored the median or worse, by an
        unknown amount. ``running`` runs have no score yet, but reduce the uncertainty at their
        points. ``earlier`` are the surrogates of studies of tasks that may be like this one, over
        the same features.

        Raises:
            SurrogateError: fewer than three runs have a score, or no surface fits them.
        """
        if np.isfinite(scores).sum() < FEWEST:
            raise SurrogateError(f"fewer than {FEWEST} trials are complete")
        nothing = Runs.none(told.points.shape[1])
        pruned, running = pruned or nothing, running or nothing
        self.squash = Squash.of(scores)
        self._targets = self.squash(scores)
        self._earlier = tuple(earlier)
        self.scales = _scales(told, self._targets, *earlier)
        self._doubts = np.zeros(len(told))  # variances in addition to the noise
        if len(pruned):
            self._condition(told, nothing)
            believed, doubts = self._censored(pruned)
            self._targets = np.concatenate([self._targets, believed])
            self._doubts = np.concatenate([self._doubts, doubts])
        self._condition(told.then(pruned), running)

    @one_thread
    def mean(self, points: Array) -> Array:
        """Expected score of each point over seeds, in the scores' own units."""
        return self.squash.undo(self._mean(points))

    @one_thread
    def deviation(self, points: Array) -> Array:
        """Standard deviation of the expected score, in the scores' own units."""
        mean, deviation = self._mean(points), np.sqrt(np.diag(self._covariance(points)))
        return (self.squash.undo(mean + deviation) - self.squash.undo(mean - deviation)) / 2

    @one_thread
    def draw(self, points: Array, generator: np.random.Generator) -> Array:
        """Draw one surface from the posterior at the points; squashed, so only ranks matter."""
        root = _root(self._covariance(points))
        return self._mean(points) + root @ generator.standard_normal(len(points))

    @one_thread
    def improvement(self, points: Array, tried: Array) -> float:
        """The largest expected improvement of a point over the ``tried`` one with the best mean.

        In standard deviations of a run's score given its schedule and its seed, which are those of
        noise and of what the schedule owes to the seed. Both schedules' scores are over seeds.
        """
        means = self._mean(tried)
        best = tried[[int(np.argmin(means))]]
        joint = np.vstack([best, points])
        covariance = self._covariance(joint)
        variance = covariance[0, 0] + np.diag(covariance) - 2 * covariance[0]
        deviation = np.sqrt(np.maximum(variance[1:], JITTER))
        ahead = float(means.min()) - self._mean(points)
        ratio = ahead / deviation
        gain = deviation * stats.norm.pdf(ratio) + ahead * stats.norm.cdf(ratio)
        return float(gain.max()) / math.hypot(self.scales.noise, self.scales.local)

    @property
    def noise(self) -> float:
        """Standard deviation of a run's score not explained by schedule or seed."""
        return self.scales.noise * self.squash.spread

    def _condition(self, told: Runs, running: Runs) -> None:
        """Condition on ``told`` with their targets; ``running`` only affects the covariance."""
        runs = told.then(running)
        doubts = np.concatenate([self._doubts, np.zeros(len(running))])
        self._points = runs.points
        self._root = _root(_covariance(runs, self.scales) + np.diag(self.scales.noise**2 + doubts))
        known = self._root[: len(told), : len(told)]
        unexpected = self._targets - self._inherited(told.points)
        self._weights = linalg.cho_solve((known, True), unexpected)

    def _inherited(self, points: Array) -> Array:
        """What the earlier studies lead to expect, before any run of this one."""
        expected = np.zeros(len(points))
        for trust, each in zip(self.scales.trusts, self._earlier, strict=True):
            expected += trust * each._mean(points)
        return expected

    def _mean(self, points: Array) -> Array:
        known = self._points[: len(self._weights)]
        return np.asarray(self._across(points, known) @ self._weights + self._inherited(points))

    def _covariance(self, points: Array) -> Array:
        half = linalg.solve_triangular(self._root, self._across(self._points, points), lower=True)
        return np.asarray(self._across(points, points) - half.T @ half)

    def _across(self, points: Array, others: Array) -> Array:
        """Prior covariance of level + f between points."""
        surface = self.scales.surface**2 * matern(cdist(points, others))
        return np.asarray(self.scales.level**2 + surface)

    def _censored(self, pruned: Runs) -> tuple[Array, Array]:
        """Imputed scores of pruned runs, at the median or worse: means and variances."""
        variance = np.diag(self._covariance(pruned.points)) + self.scales.noise**2
        mean, deviation = self._mean(pruned.points), np.sqrt(np.maximum(variance, JITTER))
        above = stats.truncnorm(-mean / deviation, np.inf, loc=mean, scale=deviation)
        return np.minimum(above.mean(), WORST), above.var()


class SurrogateError(ValueError):
    """No surface can be fitted to the runs."""


def matern(distances: Array) -> Array:
    """Matérn correlation with smoothness 5/2 (Rasmussen and Williams, equation 4.17)."""
    scaled = math.sqrt(5) * distances
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def _covariance(runs: Runs, scales: Scales) -> Array:
    """Prior covariance of the runs' scores without noise, (runs, runs)."""
    distances = cdist(runs.points, runs.points)
    alike = runs.seeds[:, None] == runs.seeds
    owed = scales.seed**2 + scales.local**2 * matern(distances / LOCAL)
    return np.asarray(scales.level**2 + scales.surface**2 * matern(distances) + alike * owed)


def _root(covariance: Array) -> Array:
    """Lower Cholesky factor of a covariance."""
    jittered = covariance + JITTER * np.eye(len(covariance))
    for more in (0.0, 1e-6, 1e-4):
        try:
            return np.asarray(linalg.cholesky(jittered + more * np.eye(len(jittered)), lower=True))
        except linalg.LinAlgError:
            continue
        except ValueError:  # not finite
            break
    raise SurrogateError("the covariance of the trials' scores is singular")


def _scales(told: Runs, targets: Array, *earlier: Surrogate) -> Scales:
    """The scales with the highest posterior density on a grid around the defaults.

    Coordinate descent: the noise, the seed effect, the surface, the trust in each earlier study and
    the surface again if there are any, and the noise once more.
    """
    some = np.linspace(0, len(told) - 1, min(len(told), FITTED)).astype(int)
    runs = Runs(points=told.points[some], seeds=told.seeds[some])
    distances = cdist(runs.points, runs.points)
    parts = (matern(distances), matern(distances / LOCAL), runs.seeds[:, None] == runs.seeds)
    expected = [each._mean(runs.points) for each in earlier]
    usual = Scales(surface=DIFFERENCE) if earlier else Scales()

    def scaled(noise: float, seed: float, surface: float, *trusts: float) -> Scales:
        return replace(
            usual.louder(noise),
            seed=seed * usual.seed,
            surface=surface * usual.surface,
            trusts=tuple(trust / len(earlier) for trust in trusts),
        )

    def density(*factors: float) -> float:
        scales = scaled(*factors)
        prior = -sum(math.log(each) ** 2 for each in factors) / (2 * DOUBT**2)
        surprise = targets[some]
        for trust, mean in zip(scales.trusts, expected, strict=True):
            surprise = surprise - trust * mean
        return _evidence(parts, surprise, scales) + prior

    chosen = [1.0] * (3 + len(earlier))
    again = [*range(3, len(chosen)), 2] if earlier else []
    for place in (0, 1, 2, *again, 0):
        grid = FACTORS if place < 3 else TRUSTS
        tried = [[*chosen[:place], factor, *chosen[place + 1 :]] for factor in grid]
        chosen = max(tried, key=lambda factors: density(*factors))
    return scaled(*chosen)


def _evidence(parts: Sequence[Array], targets: Array, scales: Scales) -> float:
    """Log marginal likelihood (Rasmussen and Williams, equation 5.8)."""
    surface, local, alike = parts
    covariance = scales.level**2 + scales.surface**2 * surface
    covariance = covariance + alike * (scales.seed**2 + scales.local**2 * local)
    covariance[np.diag_indices_from(covariance)] += scales.noise**2
    root = _root(covariance)
    half = linalg.solve_triangular(root, targets, lower=True)
    return -0.5 * float(half @ half) - float(np.log(np.diag(root)).sum())
