"""Budgets: what a command grants a study, how far that goes, and what would be more."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clrsearch import proposals
from clrsearch.errors import PlanError
from clrsearch.results import FEWEST_TRIALS, forecast, spent, too_little
from clrsearch.search import (
    BUDGETS,
    Granted,
    Study,
    StudyPlan,
    end_if_over,
    further_trials,
    next_lot,
    purses,
    read_purses,
)
from clrsearch.service.confirming import lacks_budget
from clrsearch.storage import Database, SlotState, budget, read_clock
from clrsearch.tasks import TaskFacts

LEAST_LOADING = 2.0  # seconds
ENDING = 3  # in times of what loading takes: workers leave, and torch runs the code that is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a command grants a study.

    Attributes:
        plan: with the limits it gives.
        began: when it began, by the monotonic clock.
        loading: seconds that it took to load the task in a process. On a busy machine it is many,
            and so it is for workers to start, and for the command to end once they have left.
        workers: the number of workers that it starts.
        interval_seconds: what an interval takes, as far as it was tried.
    """

    plan: StudyPlan
    began: float
    loading: float
    workers: int
    interval_seconds: float

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, which leaves time to end the workers and tell the result."""
        if self.plan.minutes is None:
            return None
        return 60 * self.plan.minutes - (time.monotonic() - self.began) - ENDING * self._loading

    @property
    def _loading(self) -> float:
        return max(self.loading, LEAST_LOADING)

    def require_enough(self, facts: TaskFacts) -> None:
        """Refuse a budget that is too small for a few trials and their confirmation.

        Raises:
            PlanError: saying how much is needed.
        """
        seconds = self.seconds_left
        found = purses(
            self.plan,
            facts,
            (),
            seconds_left=None if seconds is None else seconds - self._loading,
            interval_seconds=self.interval_seconds,
            workers=self.workers,
        )
        if further_trials(found, self.plan) < FEWEST_TRIALS:
            raise PlanError(too_little(found, self.plan, facts.spacing, workers=self.workers))

    def granted(self, database: Database, interval_seconds: float = 0.0) -> Granted:
        """What is stored of it; ``interval_seconds`` if it has not tried what an interval takes."""
        seconds = self.seconds_left
        return Granted(
            deadline=None if seconds is None else read_clock(database.engine) + seconds,
            interval_seconds=self.interval_seconds or interval_seconds,
        )

    def give(self, study: Study) -> str | None:
        """Set the study's limits and open slots for it; returns a line on how it will be spent.

        Without any limit given, those that it has stay.
        """
        plan = self.plan
        if not (plan.open_ended or "trials" in plan.model_fields_set):
            if not study.record.plan.open_ended:
                study.grow(study.plan.trials)
            return None
        before = study.record.plan.open_ended
        if not (before or plan.open_ended):
            study.grow(plan.trials)
            return None
        granted = self.granted(study.database, study.granted.interval_seconds)
        study.limit(plan, granted)
        if study.cancelled:
            study.allow_confirmation()
        found, counts = read_purses(study, self.workers), study.slots.counts()
        missing = max(plan.trials - budget(counts), 0)
        if not plan.open_ended:
            study.extend(plan.trials)
            return None
        waiting = counts[SlotState.OPEN]
        further = min(further_trials(found, plan), missing + waiting)
        study.slots.cancel(keep=further)
        study.extend(budget(counts) + min(further - waiting, next_lot(study)))
        return forecast(found, plan, study.facts.spacing, workers=self.workers, trials=further)


def settle_up(study: Study) -> str | None:
    """End a study whose time is over; returns what has kept its verdict from being settled."""
    end_if_over(study)
    found = read_purses(study)
    if not found or not lacks_budget(study):
        return None
    return f"{spent(found)} before the verdict was settled"


def search_further(study: Study, trials: int) -> str | None:
    """The command that grants a study as much again, or 50 trials more than these."""
    plan = study.record.plan
    given: dict[str, object] = {}
    for key in BUDGETS:
        granted = getattr(plan, key)
        if granted is not None:
            given[key] = f"{granted if key == 'minutes' else 2 * granted:g}"
    return proposals.again(**given or {"trials": trials + 50})
