"""Who is run again on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from clrsearch.errors import StudyError
from clrsearch.search.history import Record, best_first
from clrsearch.search.traces import one_each
from clrsearch.tasks import Direction


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
