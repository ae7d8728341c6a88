"""Who is run again on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from clrsearch.errors import StudyError
from clrsearch.search.history import Record, best_first
from clrsearch.search.traces import one_each
from clrsearch.tasks import Direction

CREDIBLE = 2.0  # posterior deviations behind the best that a trial may be


def finalists(
    records: Sequence[Record],
    *,
    top: int,
    baseline: str,
    direction: Direction,
    trace_of: Callable[[Record], int],
    expected: Mapping[int, float] | None = None,
    deviation: Mapping[int, float] | None = None,
) -> list[Record]:
    """Who is confirmed: the best complete trial of each family, then the next best.

    So many that there are ``top`` of them besides the baseline's, or one per family if these are
    more. No schedule is confirmed twice: ``trace_of`` numbers the traces.

    ``expected`` are posterior means by trial and ``deviation`` their standard deviations: with
    these the trials are ranked by what is expected of them, those that are not credibly the best
    are left out, whole families too, and ``top`` is the most there are. The baseline's best is
    always one.

    Raises:
        StudyError: no trial is complete.
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
    chosen = {record.number for record in firsts}
    others = (
        each.number for each in ranked if each.number not in chosen and each.family != baseline
    )
    room = top - sum(each.family != baseline for each in firsts)
    chosen |= set(islice(others, max(room, 0)))
    return [record for record in ranked if record.number in chosen]


def _credible(
    ranked: Sequence[Record],
    expected: Mapping[int, float],
    deviation: Mapping[int, float],
    direction: Direction,
    baseline: str,
) -> list[Record]:
    """Those that may be the best by what is expected, in that order, and the baseline's best."""
    sign = 1.0 if direction == "minimize" else -1.0
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
