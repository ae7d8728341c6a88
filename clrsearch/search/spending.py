"""What is left of a study's budget, and what it is spent on next: the search or the confirmation.

The confirmation has its share of the budget, and enough for two seeds of the fewest finalists, left
when the search ends. Both count in full-length runs, since a trial that begins may not be pruned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

from clrsearch.search.allocation import OPENING
from clrsearch.search.history import Record
from clrsearch.search.plan import MOST_TRIALS, StudyPlan
from clrsearch.tasks import TaskFacts

RECENT = 20  # ended trials that tell what a run takes
OVERHEAD_SECONDS = 0.15  # between two trials of a worker, before two have ended
SLACK = 1.1  # in times of the expected duration, to be done in time
HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a full-length run takes: seconds of training, and between it and the next one.

    ``lanes`` runs are trained together in each worker, each on ``ranks`` GPUs; ``seconds`` is the
    run's share.
    """

    seconds: float
    overhead: float = OVERHEAD_SECONDS
    lanes: int = 1
    ranks: int = 1

    @property
    def wall(self) -> float:
        """Seconds from a run's start to the start of the worker's next one."""
        return self.seconds * self.lanes + self.overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """One limit of a study: seconds, GPU seconds or epochs.

    Attributes:
        key: the plan's key that sets it.
        granted: what was given.
        left: what is left once all runs under way have ended.
        run: what a full-length run takes.
        confirmed: what the confirmation has had of it.
        together: number of runs that are paid for at once, as workers share the time.
    """

    key: str
    granted: float
    left: float
    run: float
    confirmed: float = 0.0
    together: int = 1

    def runs(self, kept: float = 0.0) -> int:
        """Number of full-length runs that it pays for if so much of it is ``kept``."""
        if self.run <= 0:
            return MOST_TRIALS
        return max(math.floor((self.left - kept) / self.run + 1e-9), 0) * self.together

    def reserve(self, share: float, fewest: int) -> float:
        """What to keep for the confirmation: its share, and at least so many runs."""
        runs = math.ceil(fewest / self.together)
        return max(share * self.granted - self.confirmed, runs * self.run) if fewest else 0.0


def fewest_runs(plan: StudyPlan) -> int:
    """The fewest runs of a confirmation: two seeds for each finalist, or as many as planned."""
    confirm = plan.confirm
    if not confirm.enabled:
        return 0
    compared = len({*plan.families} - {plan.baseline}) if plan.allocation == "equal" else 1
    if confirm.seeds is not None:
        return confirm.seeds * (max(confirm.top, compared) + 1)
    return OPENING * (max(compared, 1) + 1)


def further_trials(purses: Sequence[Purse], plan: StudyPlan) -> int:
    """Number of full-length trials that the budget leaves to the search, the confirmation aside."""
    share, fewest = float(plan.confirm.share), fewest_runs(plan)
    return min((each.runs(each.reserve(share, fewest)) for each in purses), default=MOST_TRIALS)


def further_runs(purses: Sequence[Purse]) -> int:
    """Number of full-length runs that all of what is left pays for."""
    return min((each.runs() for each in purses), default=MOST_TRIALS)


def cost_of_run(
    records: Sequence[Record], intervals: int, *, interval_seconds: float = 0.0
) -> Cost:
    """What a run of so many ``intervals`` takes, from the latest ones that ended.

    Before any has, ``interval_seconds`` are those of an interval.
    """
    ended = sorted(
        (
            each
            for each in records
            if each.ended is not None and each.epoch > each.inherited and each.seconds > 0
        ),
        key=lambda each: (each.ended, each.number),
    )[-RECENT:]
    if not ended:
        return Cost(seconds=interval_seconds * intervals)
    seconds = median(each.seconds / (each.epoch - each.inherited) for each in ended)
    pauses = _pauses(ended)
    return Cost(
        seconds=seconds * intervals,
        overhead=median(pauses) if pauses else OVERHEAD_SECONDS,
        lanes=ended[-1].lanes,
        ranks=ended[-1].ranks,
    )


def _pauses(ended: Sequence[Record]) -> list[float]:
    """Seconds between two trials of one worker, where it trains one at a time."""
    found = []
    for _, of_worker in groupby(sorted(ended, key=lambda each: each.worker), lambda e: e.worker):
        for before, after in pairwise(of_worker):
            assert before.ended is not None and after.ended is not None
            if after.lanes == 1:
                apart = (after.ended - before.ended).total_seconds()
                found.append(max(apart - after.seconds, 0.0))
    return found


def purses(
    plan: StudyPlan,
    facts: TaskFacts,
    trials: Sequence[Record],
    runs: Sequence[Record] = (),
    *,
    seconds_left: float | None = None,
    interval_seconds: float = 0.0,
    workers: int = 1,
) -> list[Purse]:
    """The limits of a study, given the ``trials`` of its search and the ``runs`` confirming it.

    ``seconds_left`` is the time until the deadline, ``interval_seconds`` what an interval takes as
    far as is known before any trial has ended, and ``workers`` how many are at work.
    """
    cost = cost_of_run((*trials, *runs), facts.intervals, interval_seconds=interval_seconds)
    found = []
    if plan.minutes is not None and seconds_left is not None:
        found.append(
            Purse(
                key="minutes",
                granted=60 * plan.minutes,
                left=seconds_left,
                run=SLACK * cost.wall,
                together=workers * cost.lanes,
            )
        )
    per_interval = {
        "gpu_hours": cost.seconds / facts.intervals * cost.ranks,
        "epochs_total": facts.epochs / facts.intervals,
    }
    for key, each in per_interval.items():
        granted = getattr(plan, key)
        if granted is not None:
            spent = [_spent(of_stage, key, each, facts.intervals) for of_stage in (trials, runs)]
            granted = granted * HOUR if key == "gpu_hours" else granted
            found.append(
                Purse(
                    key=key,
                    granted=granted,
                    left=granted - sum(spent),
                    run=each * facts.intervals,
                    confirmed=spent[1],
                )
            )
    return found


def _spent(records: Sequence[Record], key: str, per_interval: float, intervals: int) -> float:
    """What trials have taken: those that run their full length."""
    total = 0.0
    for each in records:
        if key == "gpu_hours" and each.seconds > 0:
            total += each.seconds * each.ranks
        else:
            total += per_interval * _trained(each, intervals)
    return total


def _trained(record: Record, intervals: int) -> int:
    """The number of intervals that a trial trained itself, with the one in which it broke."""
    if record.state == "running":
        return intervals
    broken = record.diverged or record.state == "failed"
    return min(record.epoch + broken, intervals) - record.inherited


def workers_at_work(records: Sequence[Record]) -> int:
    """How many workers were running trials when the last one started; at least 1."""
    if not records:
        return 1
    last = max(record.started for record in records)
    return len({each.worker for each in records if each.ended is None or each.ended >= last})
