"""The confirmation's verdict: compare schedules on fresh seeds that several of them ran with.

The best of many trials owes part of its score to the seeds it was selected on, so the winner is
chosen again on seeds the selection never saw. All runs of one seed share initial weights and data
order, and the comparison removes the seed effect. It is valid to look after every seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clrsearch.errors import StudyError
from clrsearch.search.additive_model import additive, promises, shrunken
from clrsearch.search.anytime_tests import LEVEL, among_the_best, reach, seeds_until
from clrsearch.search.history import Record
from clrsearch.search.verdict import FEWEST_SEEDS, MOST_SEEDS, Standing, Verdict
from clrsearch.tasks import Direction, sign_of

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Scores = Mapping[int, Mapping[int, float | None]]
"""Scores by trial and seed index; None for a run that diverged."""


def judge(
    candidates: Sequence[Record],
    scores: Scores,
    *,
    direction: Direction,
    expected: Mapping[int, float] | None = None,
    tolerance: float = 0.1,
) -> Verdict:
    """Compute the verdict over ``candidates``.

    Schedules that diverged on a fresh seed are out. Two schedules are compared on the seeds both
    have run with. Of the schedules expected to lose at most ``tolerance`` noise standard deviations
    to the best, the simplest is recommended: the one with the fewest searched values. With a single
    seed the top finalist is recommended.

    Args:
        candidates: the finalists.
        scores: fresh scores by trial and seed index.
        direction: whether the metric is minimized or maximized.
        expected: expected score of each finalist on further seeds, by trial; by default the
            shrunken means of the fresh scores.
        tolerance: acceptable loss against the best, in noise standard deviations.

    Raises:
        StudyError: no seed has been run with all candidates, or all candidates diverged.
    """
    run_by = [set(scores[each.number]) for each in candidates]
    if not run_by or not set.intersection(*run_by):
        raise StudyError("no seed has been run with all finalists yet")
    fit = [each for each in candidates if None not in scores[each.number].values()]
    if not fit:
        raise StudyError("every finalist diverged on a fresh seed")
    sign = sign_of(direction)
    table = sign * _table(fit, scores)
    order = np.argsort(additive(table).means, kind="stable")
    fit, table = [fit[index] for index in order], table[order]
    found, p = additive(table), among_the_best(table)
    if expected is None:
        awaited = shrunken(found)
    else:
        awaited = sign * np.array([expected[each.number] for each in fit])
    chosen = _simplest(fit, awaited, (found.deviation or 0.0) * tolerance)
    promised = promises(found, chosen)
    unbeaten = [index for index in range(len(fit)) if index == 0 or p[index] > LEVEL]
    behind = [
        index
        for index in unbeaten
        if index not in (0, chosen)
        and found.counts[index] < found.counts.max()
        and promised is not None
        and promised[index] <= tolerance
    ]
    kept = [index for index in unbeaten if index not in behind]
    standings = [
        _standing(
            each,
            scores[each.number],
            mean=sign * float(found.means[i]),
            expected=sign * float(awaited[i]),
            promise=None if promised is None else float(promised[i]),
            p=float(p[i]) if i and found.counts[i] > 1 else None,
        )
        for i, each in enumerate(fit)
    ]
    standings += [_standing(each, scores[each.number]) for each in candidates if each not in fit]
    possible, needed = _what_is_open(table, kept, behind)
    winner = _winner([fit[i] for i in unbeaten], rivals=len(standings) - len(unbeaten))
    return Verdict(
        standings=tuple(standings),
        undecided=tuple(fit[i].number for i in kept),
        behind=tuple(fit[i].number for i in behind),
        winner=winner,
        chosen=fit[chosen].number,
        deviation=found.deviation,
        possible=possible,
        seeds_needed=needed,
        tolerance=tolerance,
    )


def _table(fit: Sequence[Record], scores: Scores) -> Matrix:
    """Scores as a (schedules, seeds) array; NaN where a schedule has not run with a seed."""
    seeds = sorted({seed for each in fit for seed in scores[each.number]})
    return np.array(
        [[scores[each.number].get(seed, math.nan) for seed in seeds] for each in fit], dtype=float
    )


def _simplest(fit: Sequence[Record], awaited: Vector, most: float) -> int:
    """Index of the schedule with the fewest values among those at most ``most`` behind the best."""
    near = [i for i in range(len(fit)) if awaited[i] - awaited.min() <= most]
    return min(near, key=lambda i: (len(fit[i].params), awaited[i], i))


def _what_is_open(
    table: Matrix, kept: Sequence[int], behind: Sequence[int]
) -> tuple[float | None, int | None]:
    """The largest difference still possible among the undecided, and the seeds to settle one."""
    rivals = kept[1:] or behind
    enough = (len(table) - 1) * (len(kept) + len(behind)) / LEVEL  # as among_the_best corrects
    largest, fewest = 0.0, math.inf
    for rival in rivals:
        difference = table[rival] - table[0]
        difference = difference[~np.isnan(difference)]
        seeds = len(difference)
        if seeds < 2:
            return None, FEWEST_SEEDS
        mean, deviation = float(difference.mean()), float(difference.std(ddof=1))
        largest = max(largest, mean + reach(difference))
        if mean > 0:
            effect = mean / max(deviation, 1e-6 * mean)
            needed = seeds_until(effect, enough=enough, most=MOST_SEEDS)
            fewest = min(fewest, max(needed, seeds + 1))  # the seeds so far did not
    return (
        largest if kept[1:] and math.isfinite(largest) else None,
        int(fewest) if fewest <= MOST_SEEDS else None,
    )


def _winner(undecided: Sequence[Record], *, rivals: int) -> str | None:
    """The family of all undecided schedules if they share one and at least one rival is out."""
    families = {each.family for each in undecided}
    return undecided[0].family if len(families) == 1 and rivals else None


def _standing(
    record: Record,
    scores: Mapping[int, float | None],
    *,
    mean: float | None = None,
    expected: float | None = None,
    promise: float | None = None,
    p: float | None = None,
) -> Standing:
    """Build a finalist's standing; without a ``mean`` (it diverged), average its finite scores."""
    finite = {seed: score for seed, score in sorted(scores.items()) if score is not None}
    values = np.array(list(finite.values()))
    if mean is None:
        mean = float(values.mean()) if len(values) else math.nan
    half = None
    if len(values) > 1:
        quantile = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1))
        half = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    assert record.value is not None
    return Standing(
        trial=record.number,
        family=record.family,
        searched=record.value,
        scores=finite,
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        expected=expected,
        promise=promise,
        p=p,
        diverged=len(scores) - len(finite),
    )
