"""Whether a schedule is worse than others, told so that one may look after every seed.

Of the paired differences of two schedules over n seeds, with the t statistic t and nu = n - 1, the
evidence for a mean above zero is the likelihood of t under a prior on the standardized effect, the
positive half of a normal distribution of variance g, over its likelihood without an effect:

    E = 2 P (1 + n g)^(-1/2) ((1 + t^2 / nu) / (1 + t^2 / (nu (1 + n g))))^(n / 2)

where P is the probability of an effect above zero by the same normal prior of both signs. Without
an effect it rises above 1 / a at any of all seeds with a probability of at most a, so that 1 / E is
a p value at every look (H. Wang, A. Ramdas, "Anytime-valid t-tests and confidence sequences for
Gaussian means with unknown variance", arXiv 2310.03722).
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
PRIOR = 2.0  # g; of 0.5 to 4 it needs the fewest seeds where a rival is worse by 2 or 3 deviations

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def evidence(differences: Vector) -> Vector:
    """The logarithm of the evidence for a mean above zero, after each of the ``differences``.

    Differences that are all zero are none. Equal ones are not without limit: after n of them it is
    at most 2 (1 + n g)^((n - 1) / 2).
    """
    seeds = np.arange(1, len(differences) + 1)
    sums, squares = np.cumsum(differences), np.cumsum(differences**2)
    explained = np.divide(
        sums * np.abs(sums), seeds * squares, out=np.zeros(len(seeds)), where=squares > 0
    )
    found = _evidence(seeds, explained)
    found[:1] = 0.0  # one difference has no deviation to be held against
    return found


def _evidence(seeds: NDArray[np.int_], explained: Vector) -> Vector:
    """The same of the share of the squares that the mean explains, t^2 / (t^2 + nu), signed."""
    widened = 1 + PRIOR * seeds
    rest = 1 - np.abs(explained) * (1 - 1 / widened)
    score = np.sign(explained) * seeds * np.sqrt(np.abs(explained) * PRIOR / widened / rest)
    two_sided = -0.5 * np.log(widened) - seeds / 2 * np.log(rest)
    with np.errstate(divide="ignore"):  # of a probability that no float holds
        return np.asarray(two_sided + np.log(2 * stdtr(seeds, score)))


def among_the_best(table: Matrix) -> Vector:
    """The corrected p of each schedule's being as good as all others; at most ``LEVEL``: beaten.

    ``table`` is (schedules, seeds), less is better, and not a number where a schedule has not run
    with a seed: two of them are compared on the seeds that both have, in their order, at every
    look up to the last one. Bonferroni's correction is for the rivals that may be better, Holm's
    (Scandinavian Journal of Statistics 6, 1979) for the schedules that may be beaten: that
    anything is found of equal schedules, at any look, has a probability of at most ``LEVEL``.
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
    """Step-down corrected: the smallest of m times m, the next times m - 1, never decreasing."""
    order = np.argsort(raw, kind="stable")
    corrected = np.empty(len(raw))
    steps = np.arange(len(raw), 0, -1) * raw[order]
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def reach(differences: Vector) -> float:
    """How far the mean difference may be off: half the width of its 95 % interval at every look.

    The interval holds the differences that the evidence of both signs does not exclude; it has no
    ends before the fourth seed.
    """
    seeds = len(differences)
    widened = 1 + PRIOR * seeds
    most = float((math.sqrt(widened) / LEVEL) ** (2 / seeds)) if seeds else math.inf
    if most >= widened:
        return math.inf
    ratio = (most - 1) / (1 - most / widened)  # of n (mean - d)^2 to the squares around the mean
    return math.sqrt(ratio * float(np.var(differences)))


def seeds_until(effect: float, *, enough: float, most: int) -> float:
    """How many seeds bring ``enough`` evidence of a standardized effect, four times in five.

    Infinity where that takes more than ``most``.
    """
    seeds = np.arange(2, most + 1)
    t = np.maximum(effect * np.sqrt(seeds) - norm.ppf(POWER), 0.0)
    found = np.flatnonzero(_evidence(seeds, t**2 / (t**2 + seeds - 1)) >= math.log(enough))
    return float(seeds[found[0]]) if len(found) else math.inf
