"""Who won: schedules compared on fresh seeds, each of which several of them ran with.

The best of many trials owes part of its score to the seeds that it was searched with, so it is
chosen again on seeds that it was not chosen by. All runs of one seed share weights and data order,
and the comparison takes the seeds' own effect out. It may be looked at after every seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clrsearch.errors import StudyError
from clrsearch.search.additive import additive, shrunken
from clrsearch.search.evidence import LEVEL, among_the_best, reach, seeds_until
from clrsearch.search.history import Record
from clrsearch.tasks import Direction

MOST_SEEDS = 1000  # more of them are not proposed
FEWEST_SEEDS = 3  # that tell something

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Scores = Mapping[int, Mapping[int, float | None]]
"""By trial and seed index; None is a run that diverged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a finalist did on the fresh seeds.

    ``trial`` is its number in the search and ``searched`` its score there; ``scores`` are the
    fresh ones by seed index. ``mean`` is theirs, or, of one that has run with fewer seeds than
    others, what it would be with all: the seeds' own effect is taken out. ``low`` and ``high`` are
    the ends of the mean's 95 % interval, None with fewer than two seeds. ``expected`` is the score
    that it is expected to have on further seeds, None where it diverged. ``p`` is the corrected,
    anytime-valid p of its being as good as all others; None for the leader itself, and where
    nothing could be tested. ``diverged`` counts the seeds on which it did.
    """

    trial: int
    family: str
    searched: float
    scores: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None
    expected: float | None
    p: float | None
    diverged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the fresh seeds say; ``standings`` are in the order of the means, the leader first.

    ``undecided`` are the trials that are not beaten, the leader among them. ``winner`` is their
    family where they are all of one, which is best then, else None. ``chosen`` is the trial that is
    recommended: the simplest that is expected to lose next to nothing to the best. ``deviation`` is
    the standard deviation of what schedule and seed do not explain of a score, None by one seed.
    ``possible`` is the largest
    advantage over one of the undecided that the leader may still have, in the metric's units, None
    where it is not known; ``seeds_needed`` how many seeds would settle the closest of them, None if
    that is too many or there is nothing to settle.
    """

    standings: tuple[Standing, ...]
    undecided: tuple[int, ...]
    winner: str | None
    chosen: int
    deviation: float | None
    possible: float | None
    seeds_needed: int | None
    sentence: str

    def standing(self, trial: int) -> Standing:
        """Of one finalist."""
        return next(each for each in self.standings if each.trial == trial)


def judge(
    candidates: Sequence[Record],
    scores: Scores,
    *,
    direction: Direction,
    expected: Mapping[int, float] | None = None,
    tolerance: float = 0.1,
) -> Verdict:
    """The verdict over ``candidates``, of whom ``scores`` maps trial and seed index to the score.

    Who has diverged on a fresh seed is out. Two schedules are compared on the seeds that both have
    run with. ``expected`` are the scores that the finalists are expected to have on further seeds,
    by trial; without them the fresh means are shrunken. Of the schedules that are expected to lose
    at most ``tolerance`` standard deviations of the noise to the best, the simplest is recommended:
    the one with the fewest searched values. By one seed it is the leader.

    Raises:
        StudyError: there is no seed that all candidates have run with, or all of them diverged.
    """
    run_by = [set(scores[each.number]) for each in candidates]
    if not run_by or not set.intersection(*run_by):
        raise StudyError("no seed has been run with all finalists yet")
    fit = [each for each in candidates if None not in scores[each.number].values()]
    if not fit:
        raise StudyError("every finalist diverged on a fresh seed")
    sign = 1.0 if direction == "minimize" else -1.0
    table = sign * _table(fit, scores)
    order = np.argsort(additive(table).means, kind="stable")
    fit, table = [fit[index] for index in order], table[order]
    found, p = additive(table), among_the_best(table)
    kept = [index for index in range(len(fit)) if index == 0 or p[index] > LEVEL]
    if expected is None:
        awaited = shrunken(found)
    else:
        awaited = sign * np.array([expected[each.number] for each in fit])
    chosen = _simplest(fit, awaited, (found.deviation or 0.0) * tolerance)
    standings = [
        _standing(
            each,
            scores[each.number],
            mean=sign * float(found.means[i]),
            expected=sign * float(awaited[i]),
            p=float(p[i]) if i and found.counts[i] > 1 else None,
        )
        for i, each in enumerate(fit)
    ]
    standings += [_standing(each, scores[each.number]) for each in candidates if each not in fit]
    possible, needed = _what_is_open(table, kept)
    winner = _winner([fit[i] for i in kept], rivals=len(standings) - len(kept))
    return Verdict(
        standings=tuple(standings),
        undecided=tuple(fit[i].number for i in kept),
        winner=winner,
        chosen=fit[chosen].number,
        deviation=found.deviation,
        possible=possible,
        seeds_needed=needed,
        sentence=_sentence(
            standings,
            [fit[i] for i in kept],
            fit[chosen],
            winner=winner,
            seeds=int(found.counts.max()),
            tolerance=tolerance,
            possible=possible,
            needed=needed,
        ),
    )


def _table(fit: Sequence[Record], scores: Scores) -> Matrix:
    """The scores, (schedules, seeds); not a number where a schedule has not run with a seed."""
    seeds = sorted({seed for each in fit for seed in scores[each.number]})
    return np.array(
        [[scores[each.number].get(seed, math.nan) for seed in seeds] for each in fit], dtype=float
    )


def _simplest(fit: Sequence[Record], awaited: Vector, most: float) -> int:
    """The one with the fewest values of those that lose at most so much to the best."""
    near = [i for i in range(len(fit)) if awaited[i] - awaited.min() <= most]
    return min(near, key=lambda i: (len(fit[i].params), awaited[i], i))


def _what_is_open(table: Matrix, kept: Sequence[int]) -> tuple[float | None, int | None]:
    """The largest difference still possible among the undecided, and the seeds that settle one."""
    if len(kept) < 2:
        return None, None
    enough = (len(table) - 1) * len(kept) / LEVEL  # as among_the_best corrects
    largest, fewest = 0.0, math.inf
    for rival in kept[1:]:
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
            fewest = min(fewest, max(needed, seeds + 1))  # those there are have not settled it
    return (
        largest if math.isfinite(largest) else None,
        int(fewest) if fewest <= MOST_SEEDS else None,
    )


def _winner(undecided: Sequence[Record], *, rivals: int) -> str | None:
    """The one family of all that are not beaten, where another is."""
    families = {each.family for each in undecided}
    return undecided[0].family if len(families) == 1 and rivals else None


def _standing(
    record: Record,
    scores: Mapping[int, float | None],
    *,
    mean: float | None = None,
    expected: float | None = None,
    p: float | None = None,
) -> Standing:
    """``mean`` is None for one that diverged: that of the seeds on which it did not is taken."""
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
        p=p,
        diverged=len(scores) - len(finite),
    )


def _sentence(
    standings: Sequence[Standing],
    undecided: Sequence[Record],
    chosen: Record,
    *,
    winner: str | None,
    seeds: int,
    tolerance: float,
    possible: float | None,
    needed: int | None,
) -> str:
    leader = _named(undecided[0])
    if len(standings) == 1:
        return f"{leader} was confirmed alone on {_count(seeds)}: it has no rival."
    if seeds < 2:
        return (
            f"{leader} leads, but one seed tells nothing of how far chance goes: "
            f"confirm with at least {FEWEST_SEEDS} seeds."
        )
    gone = sum(each.diverged > 0 for each in standings)
    beaten = len(standings) - len(undecided) - gone
    how = f"on {_count(seeds)} {_all(beaten)} (anytime-valid p < {LEVEL})" if beaten else ""
    diverged = f"{gone} of its rivals diverged" if gone else ""
    how = "; ".join(filter(None, (how, diverged)))
    use = (
        f"Use {_named(chosen)}, the simplest schedule that is expected to lose at most "
        f"{tolerance:g} noise deviations to the best"
    )
    if winner is not None:
        other = "" if beaten else ", and there is no other"
        if len(undecided) == 1:
            simpler = f" {use}." if chosen.number != undecided[0].number else ""
            return f"{leader} is best: {how}{other}.{simpler}"
        names = ", ".join(map(_named, undecided))
        return (
            f"{winner} is best: {how}{other}. Its own schedules, {names}, cannot be told apart: "
            f"use trial {chosen.number}."
        )
    names = ", ".join(map(_named, undecided))
    largest = "" if possible is None else f" a difference of up to {possible:.3g} is still possible"
    settle = (
        f"about {needed} seeds would settle the clearest of these differences"
        if needed is not None
        else f"not even {MOST_SEEDS} seeds are likely to settle it"
    )
    return (
        f"No single winner on {_count(seeds)}: {names} cannot be told apart;"
        f"{largest}{', and' if largest else ''} {settle}. {use}."
    )


def _named(record: Record) -> str:
    return f"{record.family} (trial {record.number})"


def _count(seeds: int) -> str:
    return "1 fresh seed" if seeds == 1 else f"{seeds} fresh seeds"


def _all(rivals: int) -> str:
    return "its only rival is beaten" if rivals == 1 else f"each of its {rivals} rivals is beaten"
