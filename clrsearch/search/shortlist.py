"""Selection of the schedules to run again on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from clrsearch.errors import StudyError
from clrsearch.search.history import Record, best_first
from clrsearch.search.traces import one_each
from clrsearch.tasks import Direction, sign_of

CREDIBLE = 2.0  # posterior standard deviations a trial may be behind the best


def finalists(
    records: Sequence[Record],
    *,
    top: int,
    baseline: str,
    direction: Direction,
    trace_of: Callable[[Record], int],
    alike: Callable[[Record, Record], bool] = lambda one, other: False,
    expected: Mapping[int, float] | None = None,
    deviation: Mapping[int, float] | None = None,
) -> list[Record]:
    """Select the trials to confirm: the best complete trial of each family, then the next best.

    There are ``top`` finalists besides the baseline's, or one per family if that is more. No
    schedule is confirmed twice (``trace_of`` numbers the traces), nor one that is ``alike`` another
    finalist, unless it is the best of its family.

    Given ``expected`` (posterior means by trial) and ``deviation`` (their standard deviations),
    trials are ranked by expected score, those not credibly the best are dropped, even whole
    families, and ``top`` is a hard limit. The baseline's best trial is always a finalist.
    """
    ranked = one_each(best_first(records, direction), trace_of)
    if not ranked:
        raise StudyError("no trial is complete yet: there is nothing to confirm")
    if expected:
        ranked = _credible(ranked, expected, deviation or {}, direction, baseline)
    best: dict[str, Record] = {}
    for record in ranked:
        best.setdefault(record.family, record)
    firsts = list(best.values())
    if expected:
        rivals = [each for each in firsts if each.family != baseline]
        firsts = rivals[:top] + [each for each in firsts if each.family == baseline]
    chosen = list(firsts)
    room = top - sum(each.family != baseline for each in firsts)
    for record in ranked:
        if room < 1:
            break
        if record.family == baseline or record in chosen:
            continue
        if not any(alike(record, each) for each in chosen):
            chosen.append(record)
            room -= 1
    numbers = {record.number for record in chosen}
    return [record for record in ranked if record.number in numbers]


def _credible(
    ranked: Sequence[Record],
    expected: Mapping[int, float],
    deviation: Mapping[int, float],
    direction: Direction,
    baseline: str,
) -> list[Record]:
    """Trials that may be the best, by expected score, and the baseline's best trial."""
    sign = sign_of(direction)
    known = sorted(
        (each for each in ranked if each.number in expected),
        key=lambda each: sign * expected[each.number],
    )
    if not known:  # none of them is complete
        return list(ranked)
    best = known[0].number
    credible = [
        each
        for each in known
        if sign * (expected[each.number] - expected[best])
        <= CREDIBLE * math.hypot(deviation.get(each.number, 0.0), deviation.get(best, 0.0))
    ]
    of_baseline = [each for each in (*known, *ranked) if each.family == baseline][:1]
    return [*credible, *(each for each in of_baseline if each not in credible)]
