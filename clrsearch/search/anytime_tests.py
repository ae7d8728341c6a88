"""Anytime-valid tests of whether a schedule is worse: valid even when checked after every seed.

For the paired differences of two schedules over n seeds, with t statistic t and nu = n - 1, the
evidence for a mean above zero is a likelihood ratio: the likelihood of t under a prior on the
standardized effect, the positive half of a normal distribution of variance g, over its likelihood
under no effect:

    E = 2 P (1 + n g)^(-1/2) ((1 + t^2 / nu) / (1 + t^2 / (nu (1 + n g))))^(n / 2)

where P is the posterior probability of an effect above zero under the two-sided normal prior. Under
no effect, the probability that E ever exceeds 1 / a is at most a, so 1 / E is a valid p-value at
every look (H. Wang, A. Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian means
with unknown variance", arXiv 2310.03722).
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import norm

LEVEL = 0.05
POWER = 0.8
PRIOR = 2.0  # g; of 0.5 to 4, needs the fewest seeds for rivals worse by 2 or 3 deviations

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def evidence(differences: Vector) -> Vector:
    """Log evidence for a mean above zero, after each of the ``differences``.

    Differences that are all zero give no evidence. Identical differences give bounded evidence:
    after n of them at most 2 (1 + n g)^((n - 1) / 2).
    """
    seeds = np.arange(1, len(differences) + 1)
    sums, squares = np.cumsum(differences), np.cumsum(differences**2)
    explained = np.divide(
        sums * np.abs(sums), seeds * squares, out=np.zeros(len(seeds)), where=squares > 0
    )
    found = _evidence(seeds, explained)
    found[:1] = 0.0  # a single difference has no standard deviation
    return found


def _evidence(seeds: NDArray[np.int_], explained: Vector) -> Vector:
    """Log evidence from the signed share of the squares explained by the mean, t^2 / (t^2 + nu)."""
    widened = 1 + PRIOR * seeds
    rest = 1 - np.abs(explained) * (1 - 1 / widened)
    score = np.sign(explained) * seeds * np.sqrt(np.abs(explained) * PRIOR / widened / rest)
    two_sided = -0.5 * np.log(widened) - seeds / 2 * np.log(rest)
    with np.errstate(divide="ignore"):  # log(0) where the probability underflows
        return np.asarray(two_sided + np.log(2 * stdtr(seeds, score)))


def among_the_best(table: Matrix) -> Vector:
    """Corrected p-value of each schedule being as good as all others; significant up to ``LEVEL``.

    Pairs are compared on the seeds both have, in order, and the strongest evidence at any look up
    to the last one counts. Bonferroni corrects for the rivals that may be better, Holm
    (Scandinavian Journal of Statistics 6, 1979) for the schedules that may be worse: if all
    schedules are equal, the probability of any finding, at any look, is at most ``LEVEL``.

    Args:
        table: scores, (schedules, seeds), lower is better; NaN where a schedule has not run with a
            seed.
    """
    schedules = len(table)
    if schedules < 2:
        return np.ones(schedules)
    best_evidence = np.zeros(schedules)
    for one, other in combinations(range(schedules), 2):
        difference = table[one] - table[other]
        difference = difference[~np.isnan(difference)]
        for worse, sign in ((one, 1.0), (other, -1.0)):
            largest = float(evidence(sign * difference).max(initial=0.0))
            best_evidence[worse] = max(best_evidence[worse], largest)
    return _holm((schedules - 1) * np.exp(-best_evidence))


def _holm(raw: Vector) -> Vector:
    """Holm's step-down: m times the smallest, m - 1 times the next, ..., made non-decreasing."""
    order = np.argsort(raw, kind="stable")
    corrected = np.empty(len(raw))
    steps = np.arange(len(raw), 0, -1) * raw[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def reach(differences: Vector) -> float:
    """Half the width of the anytime-valid 95 % confidence interval of the mean difference.

    The interval holds the differences that the evidence of neither sign excludes; it is unbounded
    before the fourth seed.
    """
    seeds = len(differences)
    widened = 1 + PRIOR * seeds
    most = float((math.sqrt(widened) / LEVEL) ** (2 / seeds)) if seeds else math.inf
    if most >= widened:
        return math.inf
    ratio = (most - 1) / (1 - most / widened)  # n (mean - d)^2 over the squares around the mean
    return math.sqrt(ratio * float(np.var(differences)))


def seeds_until(effect: float, *, enough: float, most: int) -> float:
    """Seeds needed to reach ``enough`` evidence for a standardized effect with 80 % power.

    Infinity if that takes more than ``most``.
    """
    seeds = np.arange(2, most + 1)
    t = np.maximum(effect * np.sqrt(seeds) - norm.ppf(POWER), 0.0)
    found = np.flatnonzero(_evidence(seeds, t**2 / (t**2 + seeds - 1)) >= math.log(enough))
    return float(seeds[found[0]]) if len(found) else math.inf
