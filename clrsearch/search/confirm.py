"""Who won: schedules compared on fresh seeds, each of which all of them ran with.

The best of many trials owes part of its score to the one seed that it was searched with, so it is
chosen again on seeds that it was not chosen by. All runs of one seed share weights and data order,
and the comparison takes the seeds' own effect out. The corrected tests are Holm's (S. Holm, "A
Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clrsearch.errors import StudyError
from clrsearch.search.history import Record, best_first
from clrsearch.search.traces import one_each
from clrsearch.tasks import Direction

LEVEL = 0.05
POWER = 0.8
UNEQUAL = 0.01  # as improbable a ratio of two variances, and the pooled one is not used
MOST_SEEDS = 1000  # more of them are not proposed
FEWEST_SEEDS = 3  # that tell something

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a finalist did on the fresh seeds.

    ``trial`` is its number in the search and ``searched`` its score there; ``scores`` are the
    fresh ones by seed index. ``low`` and ``high`` are the ends of the mean's 95 % interval, None
    with fewer than two seeds. ``p`` is the corrected probability of as large a difference from the
    leader if there were none; None for the leader itself, and where nothing could be tested.
    ``diverged`` counts the seeds on which it did.
    """

    trial: int
    family: str
    searched: float
    scores: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None
    p: float | None
    diverged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the fresh seeds say; ``standings`` are in the order of the means, the leader first.

    ``undecided`` are the trials that the leader could not be told from, the leader among them.
    ``winner`` is their family where they are all of one, which is best then, else None. ``chosen``
    is the trial to use. ``possible`` is the largest
    advantage over one of the undecided that the leader may still have, in the metric's units;
    ``seeds_needed`` how many seeds would settle the closest of them, None if that is too many
    or there is nothing to settle.
    """

    standings: tuple[Standing, ...]
    undecided: tuple[int, ...]
    winner: str | None
    chosen: int
    possible: float | None
    seeds_needed: int | None
    sentence: str


def finalists(
    records: Sequence[Record],
    *,
    top: int,
    baseline: str,
    direction: Direction,
    trace_of: Callable[[Record], int],
) -> list[Record]:
    """Who is confirmed: the best complete trial of each family, then the next best.

    So many that there are ``top`` of them besides the baseline's, or one per family if these are
    more. No schedule is confirmed twice: ``trace_of`` numbers the traces.

    Raises:
        StudyError: no trial is complete.
    """
    ranked = one_each(best_first(records, direction), trace_of)
    if not ranked:
        raise StudyError("no trial is complete yet: there is nothing to confirm")
    best: dict[str, Record] = {}
    for record in ranked:
        best.setdefault(record.family, record)
    chosen = {record.number for record in best.values()}
    others = (
        each.number for each in ranked if each.number not in chosen and each.family != baseline
    )
    room = top - sum(family != baseline for family in best)
    chosen |= set(islice(others, max(room, 0)))
    return [record for record in ranked if record.number in chosen]


def judge(
    candidates: Sequence[Record],
    scores: Mapping[int, Mapping[int, float | None]],
    *,
    direction: Direction,
) -> Verdict:
    """The verdict over ``candidates``, of whom ``scores`` maps trial and seed index to the score.

    A score of None is a run that diverged. Only seeds that every candidate has run with count. Of
    those that cannot be told apart, and are within one seed's standard deviation of the leader, the
    simplest is chosen: the one with the fewest searched values. By one seed it is the leader.

    Raises:
        StudyError: there is no seed that all candidates have run with, or all of them diverged.
    """
    run_by = [set(scores[each.number]) for each in candidates]
    shared = sorted(set.intersection(*run_by)) if run_by else []
    if not shared:
        raise StudyError("no seed has been run with all finalists yet")
    sign = 1.0 if direction == "minimize" else -1.0
    fit = [
        each for each in candidates if all(scores[each.number][seed] is not None for seed in shared)
    ]
    if not fit:
        raise StudyError("every finalist diverged on a fresh seed")
    table = np.array(
        [[sign * _number(scores[each.number][seed]) for seed in shared] for each in fit]
    )  # (finalists, seeds), less is better
    order = np.argsort(table.mean(axis=1), kind="stable")
    fit, table = [fit[index] for index in order], table[order]
    p = against_leader(table)
    kept = [index for index in range(len(fit)) if index == 0 or p[index - 1] > LEVEL]
    deviation = _deviation(table)
    near = [i for i in kept if i == 0 or table[i].mean() - table[0].mean() <= deviation]
    chosen = min(near, key=lambda i: (len(fit[i].params), i))
    lost = [each for each in candidates if each not in fit]
    standings = [
        _standing(each, scores[each.number], shared, p[i - 1] if i and len(shared) > 1 else None)
        for i, each in enumerate(fit)
    ]
    standings += [_standing(each, scores[each.number], shared, None) for each in lost]
    possible, needed = _what_is_open(table, kept)
    winner = _winner([fit[i] for i in kept], rivals=len(standings) - len(kept))
    return Verdict(
        standings=tuple(standings),
        undecided=tuple(fit[i].number for i in kept),
        winner=winner,
        chosen=fit[chosen].number,
        possible=possible,
        seeds_needed=needed,
        sentence=_sentence(
            standings,
            [fit[i] for i in kept],
            fit[chosen],
            winner=winner,
            seeds=len(shared),
            possible=possible,
            needed=needed,
        ),
    )


def against_leader(table: Matrix) -> list[float]:
    """Holm-corrected two-sided p of each row's mean against the first row's, in the rows' order.

    ``table`` is (schedules, seeds), the leader first; with one seed nothing can be told and every p
    is 1. The error is the residual of the model score = schedule + seed, pooled over all schedules;
    against a rival whose own variance differs from the leader's (F-test, 1 %; the variances after
    F. E. Grubbs, Journal of the American Statistical Association 43, 1948), the paired differences
    alone are used.
    """
    schedules, seeds = table.shape
    if seeds < 2:
        return [1.0] * (schedules - 1)
    residuals = _residuals(table)
    freedom = (schedules - 1) * (seeds - 1)
    raw = []
    for rival in range(1, schedules):
        difference = table[rival] - table[0]
        if schedules == 2 or _unequal(_variances(residuals)[[0, rival]], seeds - 1):
            variance, degrees = float(difference.var(ddof=1)), seeds - 1
        else:
            variance, degrees = 2 * float((residuals**2).sum()) / freedom, freedom
        raw.append(_p(float(difference.mean()), math.sqrt(variance / seeds), degrees))
    return _holm(raw)


def _residuals(table: Matrix) -> Matrix:
    """What schedule and seed do not explain, (schedules, seeds)."""
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    return np.asarray(table - rows - columns + table.mean())


def _variances(residuals: Matrix) -> Matrix:
    """Each of at least three schedules' own variance, without what the others put into it."""
    schedules, seeds = residuals.shape
    raw = (residuals**2).sum(axis=1) / (seeds - 1)
    pooled = raw.sum() / (schedules - 1)
    own = (raw - pooled / schedules) / (1 - 2 / schedules)
    return np.asarray(np.maximum(own, 1e-3 * pooled))


def _unequal(variances: Matrix, degrees: int) -> bool:
    low, high = variances.min(), variances.max()
    return high > 0 and bool(2 * stats.f.sf(high / low, degrees, degrees) < UNEQUAL)


def _p(difference: float, error: float, degrees: int) -> float:
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, degrees))


def _holm(raw: Sequence[float]) -> list[float]:
    """Step-down corrected: the smallest of m times m, the next times m - 1, never decreasing."""
    corrected = [1.0] * len(raw)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(raw)), key=lambda i: raw[i])):
        highest = max(highest, min(1.0, (len(raw) - rank) * raw[index]))
        corrected[index] = highest
    return corrected


def _deviation(table: Matrix) -> float:
    """The standard deviation of one seed's score, its own effect and the rest; -inf by one seed."""
    return float(np.sqrt(table.var(axis=1, ddof=1).mean())) if table.shape[1] > 1 else -math.inf


def _what_is_open(table: Matrix, kept: Sequence[int]) -> tuple[float | None, int | None]:
    """The largest difference still possible among the undecided, and the seeds that settle one."""
    seeds = table.shape[1]
    if len(kept) < 2:
        return None, None
    if seeds < 2:
        return None, FEWEST_SEEDS
    largest, fewest = 0.0, math.inf
    for rival in kept[1:]:
        difference = table[rival] - table[0]
        mean, deviation = float(difference.mean()), float(difference.std(ddof=1))
        reach = float(stats.t.ppf(1 - LEVEL / 2, seeds - 1)) * deviation / math.sqrt(seeds)
        largest = max(largest, mean + reach)
        needed = _seeds_for(mean, deviation, tests=len(kept) - 1)
        fewest = min(fewest, max(needed, seeds + 1))  # those there are have not settled it
    return largest, int(fewest) if fewest <= MOST_SEEDS else None


def _seeds_for(difference: float, deviation: float, *, tests: int) -> float:
    """How many paired seeds show such a difference with 80 % power, corrected for the tests."""
    if difference <= 0:
        return math.inf
    z = stats.norm.ppf(1 - LEVEL / (2 * tests)) + stats.norm.ppf(POWER)
    return math.ceil((float(z) * deviation / difference) ** 2) + 1


def _winner(undecided: Sequence[Record], *, rivals: int) -> str | None:
    """The one family of all that cannot be told apart, where it has beaten another."""
    families = {each.family for each in undecided}
    return undecided[0].family if len(families) == 1 and rivals else None


def _standing(
    record: Record, scores: Mapping[int, float | None], seeds: Sequence[int], p: float | None
) -> Standing:
    finite = {seed: score for seed in seeds if (score := scores[seed]) is not None}
    values = np.array(list(finite.values()))
    mean = float(values.mean()) if len(values) else math.nan
    reach = None
    if len(values) > 1:
        quantile = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1))
        reach = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Standing(
        trial=record.number,
        family=record.family,
        searched=_number(record.value),
        scores=finite,
        mean=mean,
        low=None if reach is None else mean - reach,
        high=None if reach is None else mean + reach,
        p=p,
        diverged=len(seeds) - len(finite),
    )


def _sentence(
    standings: Sequence[Standing],
    undecided: Sequence[Record],
    chosen: Record,
    *,
    winner: str | None,
    seeds: int,
    possible: float | None,
    needed: int | None,
) -> str:
    leader = f"{undecided[0].family} (trial {undecided[0].number})"
    if len(standings) == 1:
        return f"{leader} was confirmed alone on {_count(seeds)}: it has no rival."
    if seeds < 2:
        return (
            f"{leader} leads, but one seed tells nothing of how far chance goes: "
            f"confirm with at least {FEWEST_SEEDS} seeds."
        )
    gone = sum(each.diverged > 0 for each in standings)
    beaten = len(standings) - len(undecided) - gone
    diverged = f"{gone} of its rivals diverged" if gone else ""
    if len(undecided) == 1 and not beaten:
        return f"{leader} is best: {diverged}, and there is no other."
    if len(undecided) == 1:
        also = f"; {diverged}" if gone else ""
        return (
            f"{leader} is best: on {_count(seeds)} it beats {_all(beaten)} (corrected p < {LEVEL})"
            f"{also}."
        )
    names = ", ".join(f"{each.family} (trial {each.number})" for each in undecided)
    if winner is not None:
        how = f"it beats {_all(beaten)} (corrected p < {LEVEL})" if beaten else diverged
        return (
            f"{winner} is best: on {_count(seeds)} {how}. Its own schedules, {names}, "
            f"cannot be told apart: use trial {chosen.number}."
        )
    settle = (
        f"about {needed} seeds would settle the clearest of these differences"
        if needed is not None
        else f"not even {MOST_SEEDS} seeds are likely to settle it"
    )
    use = (
        f"Use {chosen.family} (trial {chosen.number}), the simplest of them within one seed's "
        "standard deviation of the leader"
        if chosen.number != undecided[0].number
        else f"Use the leader, {leader}: none of them is simpler and as good"
    )
    return (
        f"No single winner on {_count(seeds)}: {names} cannot be told apart; a difference of up to "
        f"{possible:.3g} is still possible, and {settle}. {use}."
    )


def _count(seeds: int) -> str:
    return "1 fresh seed" if seeds == 1 else f"{seeds} fresh seeds"


def _all(rivals: int) -> str:
    return "its only rival" if rivals == 1 else f"each of its {rivals} rivals"


def _number(value: float | None) -> float:
    assert value is not None
    return float(value)
