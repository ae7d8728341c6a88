"""Keeps an open-ended study within its budget: opens slots, and ends the search in time."""

from __future__ import annotations

from clrsearch.search.settling import is_settled
from clrsearch.search.spending import Purse, further_trials, purses, workers_at_work
from clrsearch.search.study import Study
from clrsearch.storage import SlotState, budget, unfinished

SPARE = 2  # open slots to have: one to claim, and one that tells others that the search goes on
MOST_OPEN = 1000  # slots to open at a time
LOT = 5  # slots added at a time until the search is settled
OVER_SECONDS = 1.0  # before the deadline, when workers have left and nothing can begin any more


def read_purses(study: Study, workers: int | None = None) -> list[Purse]:
    """What is left of each limit of a search; ``workers`` by default as many as are at work."""
    granted, seconds_left = study.granted, study.seconds_left
    sibling = study.confirmation()
    trials = study.history.records()
    runs = [] if sibling is None else sibling.history.records()
    return purses(
        study.limits,
        study.facts,
        trials,
        runs,
        seconds_left=seconds_left,
        interval_seconds=granted.interval_seconds,
        workers=workers or workers_at_work([*trials, *runs]),
    )


def tend(study: Study) -> None:
    """Open slots of an open-ended search as they are needed, or end it by cancelling open ones.

    To be called before a slot is claimed. No more slots are open than the budget pays for in full,
    since workers may claim them all at once. While the search goes on, one of its slots is always
    unfinished; once none is, only a command makes it go on.
    """
    if study.stage != "search" or not (limit := study.limits).open_ended:
        return
    counts = study.slots.counts()
    if not unfinished(counts):
        return
    further = further_trials(read_purses(study), limit) - study.slots.starting()
    waiting = counts[SlotState.OPEN]
    if further < waiting:
        study.slots.cancel(keep=max(further, 0))
        return
    if waiting >= min(SPARE, further) or study.cancelled:
        return
    lot = next_lot(study)
    if lot:
        study.extend(min(budget(counts) + min(further - waiting, lot), limit.trials))
        if study.cancelled:  # meanwhile
            study.slots.cancel()
    else:
        study.slots.cancel()


def next_lot(study: Study) -> int:
    """The most slots to open at a time; 0 if the search is to end since it is settled."""
    if not study.limits.until_settled:
        return MOST_OPEN
    return 0 if is_settled(study.history.records(), study.searched) else LOT


def is_over(study: Study) -> bool:
    """Whether the time granted to a search and its confirmation is over."""
    seconds_left = study.seconds_left
    return seconds_left is not None and seconds_left < OVER_SECONDS


def end_if_over(study: Study) -> None:
    """Cancel what has not begun once the time is over; what has begun stays to be resumed."""
    if is_over(study):
        for each in study.stages():
            each.slots.cancel()
