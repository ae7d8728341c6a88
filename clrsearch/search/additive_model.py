"""Additive model of scores: schedule effect + seed effect + residual noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

FEWEST_DEGREES = 4  # degrees of freedom below which the noise estimate is not trusted

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """Fit of score = schedule + seed + residual.

    Attributes:
        means: each schedule's mean over all seeds, estimated for the seeds it has not run with.
        counts: number of seeds each schedule has run with.
        deviation: standard deviation of the residual; None without degrees of freedom.
        degrees: residual degrees of freedom.
    """

    means: Vector
    counts: NDArray[np.int_]
    deviation: float | None
    degrees: int


def additive(table: Matrix) -> Additive:
    """Fit the additive model to a (schedules, seeds) table of scores by least squares.

    Missing runs are NaN. Every schedule must have at least one score, and all schedules must be
    connected through shared seeds.
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
    whole = counts == len(runs)  # complete rows: plain mean, no rounding
    return Additive(
        means=np.where(whole, table.mean(axis=1), schedules + seeds.mean() + level),
        counts=counts,
        deviation=float(np.sqrt((rest**2).sum() / degrees)) if degrees > 0 else None,
        degrees=degrees,
    )


def shrunken(fit: Additive) -> Vector:
    """Shrink the means towards their common mean by empirical Bayes.

    A mean keeps the fraction between / (between + noise / seeds) of its distance to the common
    mean, where ``between`` is the variance of the means in excess of the noise.
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
    """Expected improvement of each schedule over the chosen one, in noise standard deviations.

    The mean of the positive part of the difference in means, which is assumed to be normal; 0 for
    the chosen schedule itself. None if the noise estimate has too few degrees of freedom or is
    zero.
    """
    if fit.degrees < FEWEST_DEGREES or not fit.deviation:
        return None
    better = (fit.means[chosen] - fit.means) / fit.deviation
    doubt = np.sqrt(1 / fit.counts + 1 / fit.counts[chosen])
    score = better / doubt
    found = doubt * norm.pdf(score) + better * norm.cdf(score)
    found[chosen] = 0.0
    return np.asarray(found)
