"""Allocation of fresh seeds to finalists: spend seeds where the verdict depends on them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

from clrsearch.errors import StudyError
from clrsearch.search.anytime_tests import LEVEL
from clrsearch.search.confirm import Scores, judge
from clrsearch.search.history import Record
from clrsearch.search.plan import MOST_SEEDS, StudyPlan
from clrsearch.search.verdict import Standing, Verdict
from clrsearch.tasks import Direction

OPENING = 2  # seeds every finalist runs with
FRONT = 3  # first in line: the recommended schedule, a rival, and the baseline or another rival

Run = tuple[int, int]
"""Trial number of a finalist, and a seed index. Seed index 0 was used by the search."""


def every_run(finalists: Sequence[Record], seeds: int) -> list[Run]:
    """Every finalist on seeds 1 to ``seeds``; all run one seed before the next begins."""
    return [(each.number, seed) for seed in range(1, seeds + 1) for each in finalists]


def budget(plan: StudyPlan) -> int:
    """Maximum number of confirmation runs under the plan's ``share``."""
    share = plan.confirm.share
    return math.floor(share / (1 - share) * plan.trials + 1e-9)


def next_runs(
    finalists: Sequence[Record],
    scores: Scores,
    asked: Collection[Run],
    *,
    direction: Direction,
    baseline: str,
    left: int,
    workers: int = 1,
    expected: Mapping[int, float] | None = None,
    tolerance: float = 0.1,
) -> list[Run]:
    """Runs to add once all runs in ``asked`` have ended; empty if the verdict is settled.

    First, every finalist runs with two seeds, regardless of ``left``. After that, seeds go to the
    recommended schedule, the rival with the highest promise, and the ``baseline`` family until it
    differs significantly from the recommended schedule. Only shared seeds compare two schedules, so
    those of the three with fewer seeds catch up first. Rivals that are significantly worse, or
    whose promise is at most ``tolerance`` noise deviations, get no more seeds.

    Returns at most ``left`` runs, and at least one per worker if there is enough to do, adding
    further rivals and further seeds as needed. A smaller ``workers`` gives a prefix of the same
    list.
    """
    opening = [run for run in every_run(finalists, OPENING) if run not in asked]
    if opening:
        return opening
    try:
        verdict = judge(
            finalists, scores, direction=direction, expected=expected, tolerance=tolerance
        )
    except StudyError:  # all diverged, or no seed is shared by all
        return []
    runs: list[Run] = []
    for block in _in_turn(_pursued(verdict, baseline), asked):
        fitting = block[: max(left - len(runs), 0)]
        seeds = {seed for _, seed in (*asked, *runs)}
        if not fitting or (len(fitting) == 1 and fitting[0][1] not in seeds):  # unpaired
            break
        runs += fitting
        if len(runs) >= workers:
            break
    return runs


def _pursued(verdict: Verdict, baseline: str) -> list[int]:
    """Trials to spend seeds on, the recommended one first; empty if everything is settled."""
    chosen = verdict.chosen

    def open_still(each: Standing) -> bool:
        beaten = each.p is not None and each.p <= LEVEL
        return each.trial != chosen and not each.diverged and not beaten

    rivals = [each for each in verdict.standings if open_still(each)]
    promising = [
        each for each in rivals if each.promise is None or each.promise > verdict.tolerance
    ]
    promising.sort(key=lambda each: -(math.inf if each.promise is None else each.promise))
    of_baseline = [each for each in rivals if each.family == baseline]
    order = [*promising[:1], *of_baseline[:1], *promising[1:]]
    return [chosen, *dict.fromkeys(each.trial for each in order)] if order else []


def _in_turn(pursued: Sequence[int], asked: Collection[Run]) -> Iterator[list[Run]]:
    """Yield blocks of runs; each gives one more seed to those of the front with the fewest seeds.

    The front starts with three schedules. After each block one more joins, from its own last seed.
    """
    counts = {each: _in_a_row(each, asked) for each in pursued}
    front, rest = list(pursued[:FRONT]), list(pursued[FRONT:])
    while front:
        seed = min(counts[each] for each in front) + 1
        if seed > MOST_SEEDS:
            return
        block = [(each, seed) for each in front if counts[each] < seed]
        counts |= dict(block)
        yield block
        front, rest = front + rest[:1], rest[1:]


def _in_a_row(trial: int, asked: Collection[Run]) -> int:
    """The last seed index up to which the finalist has been assigned every seed."""
    return next(seed for seed in count(0) if (trial, seed + 1) not in asked)
