"""Scores as the sum of what the schedule, the seed and chance contribute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

FEWEST_DEGREES = 4  # of freedom, that the deviation is to be relied on

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """A fit of score = schedule + seed + rest.

    ``means`` are the schedules' own over all seeds, as they would be if each had run with all;
    ``counts`` the seeds that each has run with. ``deviation`` is the standard deviation of the
    rest, and ``degrees`` how many degrees of freedom it is known from; without one it is None.
    """

    means: Vector
    counts: NDArray[np.int_]
    deviation: float | None
    degrees: int


def additive(table: Matrix) -> Additive:
    """The least-squares fit to scores by schedule and seed, not a number where there is none.

    Every schedule has run with a seed, and all are linked by seeds that they share.
    """
    there = ~np.isnan(table)
    table = table[:, there.any(axis=0)]
    there = ~np.isnan(table)
    level = float(table[there].mean())
    scores = np.where(there, table - level, 0.0)
    counts, runs = there.sum(axis=1), there.sum(axis=0)
    shares = there / runs
    of_schedules = np.diag(counts) - shares @ there.T
    right = scores.sum(axis=1) - shares @ scores.sum(axis=0)
    schedules = np.linalg.lstsq(of_schedules, right, rcond=None)[0]
    seeds = (scores.sum(axis=0) - there.T @ schedules) / runs
    rest = np.where(there, scores - schedules[:, None] - seeds, 0.0)
    degrees = int(there.sum()) - len(counts) - len(runs) + 1
    whole = counts == len(runs)  # whose means need no model, and are not rounded by it
    return Additive(
        means=np.where(whole, table.mean(axis=1), schedules + seeds.mean() + level),
        counts=counts,
        deviation=float(np.sqrt((rest**2).sum() / degrees)) if degrees > 0 else None,
        degrees=degrees,
    )


def shrunken(fit: Additive) -> Vector:
    """The means drawn towards their common mean, as far as chance explains their spread.

    By empirical Bayes: a mean keeps the share between / (between + noise / seeds) of its distance,
    where ``between`` is what the spread of the means has more than the noise.
    """
    if fit.deviation is None or len(fit.means) < 2:
        return fit.means
    noise = fit.deviation**2 / fit.counts
    between = max(float(fit.means.var(ddof=1) - noise.mean()), 0.0)
    total = between + noise
    kept = np.divide(between, total, out=np.ones(len(total)), where=total > 0)
    weights = 1 / total if (total > 0).all() else np.ones(len(total))
    common = np.average(fit.means, weights=weights)
    return np.asarray(common + kept * (fit.means - common))


def promises(fit: Additive, chosen: int) -> Vector | None:
    """What each schedule promises: by how much it is expected to be better than the chosen one.

    Where it is not better, that is nothing: the mean of the positive part of the difference, which
    is taken for normal. In deviations of the rest; None where that is hardly known.
    """
    if fit.degrees < FEWEST_DEGREES or not fit.deviation:
        return None
    better = (fit.means[chosen] - fit.means) / fit.deviation
    doubt = np.sqrt(1 / fit.counts + 1 / fit.counts[chosen])
    score = better / doubt
    found = doubt * norm.pdf(score) + better * norm.cdf(score)
    found[chosen] = 0.0
    return np.asarray(found)
