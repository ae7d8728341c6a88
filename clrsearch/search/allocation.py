"""Who runs on which fresh seed next: seeds are spent where the verdict depends on them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

from clrsearch.errors import StudyError
from clrsearch.search.confirm import Scores, judge
from clrsearch.search.evidence import LEVEL
from clrsearch.search.history import Record
from clrsearch.search.plan import MOST_SEEDS, StudyPlan
from clrsearch.search.verdict import Standing, Verdict
from clrsearch.tasks import Direction

OPENING = 2  # seeds that every finalist runs with
FRONT = 3  # who get seeds first: the recommended one, a rival, the baseline or another rival

Run = tuple[int, int]
"""The number of a finalist, and a seed index. The search has run with seed index 0."""


def every_run(finalists: Sequence[Record], seeds: int) -> list[Run]:
    """Each finalist on seeds 1 to ``seeds``; all run with the first before the second begins."""
    return [(each.number, seed) for seed in range(1, seeds + 1) for each in finalists]


def budget(plan: StudyPlan) -> int:
    """How many runs the confirmation may take by the plan's share."""
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
    """The runs to add once all runs ``asked`` for have ended; none where the verdict is settled.

    First every finalist runs with two seeds, which is granted. Then seeds go to the recommended
    schedule, the rival that promises most to be better, and the ``baseline`` (a family) until it is
    told from the recommended one; of these a finalist that has fewer seeds catches up, for only
    seeds that two have run with compare them. A rival that is beaten, or promises at most
    ``tolerance`` noise deviations, gets no more. At most ``left`` runs, and at least as many as
    there are ``workers``, where there is that much to do: then further rivals are taken, and
    further seeds. The fewer workers, the fewer of the same runs.
    """
    opening = [run for run in every_run(finalists, OPENING) if run not in asked]
    if opening:
        return opening
    try:
        verdict = judge(
            finalists, scores, direction=direction, expected=expected, tolerance=tolerance
        )
    except StudyError:  # nobody is left, or some have failed on all seeds
        return []
    runs: list[Run] = []
    for block in _in_turn(_pursued(verdict, baseline), asked):
        fitting = block[: max(left - len(runs), 0)]
        seeds = {seed for _, seed in (*asked, *runs)}
        if not fitting or (len(fitting) == 1 and fitting[0][1] not in seeds):  # with none to pair
            break
        runs += fitting
        if len(runs) >= workers:
            break
    return runs


def _pursued(verdict: Verdict, baseline: str) -> list[int]:
    """Who is to get more seeds, the recommended one first; nobody where all is settled."""
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
    """Blocks of runs without end: the fewest seeds that one of three has are made one more.

    With each further block one more is let in, who begins where it has stopped.
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
    """The last seed up to which a finalist has been asked to run with all."""
    return next(seed for seed in count(0) if (trial, seed + 1) not in asked)
