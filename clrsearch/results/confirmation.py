"""Snapshot of a confirmation, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clrsearch.errors import StudyError
from clrsearch.search import Fresh, Record, Study, Verdict, expected_of, judge, read_fresh
from clrsearch.storage import SlotState, budget, unfinished
from clrsearch.tasks import Direction, sign_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """Progress and results of a confirmation.

    Of finalists with equal traces it has the first alone, with the runs of all; see
    :class:`~clrsearch.search.Fresh`.

    Attributes:
        slots: number of runs by state.
        runs: the runs that have started.
        verdict: the verdict; None until all finalists have run with a common seed.
        baseline: trial number of the baseline's finalist, if any.
        reached: first epoch from which the recommended schedule stays at least as good as the
            baseline at its last epoch, by the mean over the seeds both completed. None if it never
            is, or if the baseline itself is recommended.
        test: mean of the metric on the test split over a finalist's runs, by trial.
        absent: searched families without a complete trial, which therefore have no finalist.
    """

    slots: Mapping[SlotState, int]
    runs: tuple[Record, ...] = field(repr=False)
    verdict: Verdict | None = field(repr=False)
    baseline: int | None
    reached: int | None
    test: Mapping[int, float]
    absent: tuple[str, ...]

    @property
    def total(self) -> int:
        """Number of requested runs."""
        return budget(self.slots)

    @property
    def left(self) -> int:
        """Number of requested runs that have not ended."""
        return unfinished(self.slots)


def confirmed(study: Study) -> Confirmed | None:
    """The confirmation of a search, if it has started."""
    sibling = study.confirmation()
    if sibling is None:
        return None
    fresh = read_fresh(study, sibling)
    try:
        verdict = judge(
            fresh.finalists,
            fresh.scores,
            direction=study.facts.direction,
            expected=expected_of(fresh.finalists, study.beliefs()),
            tolerance=study.plan.confirm.tolerance,
        )
    except StudyError:  # no seed shared by all finalists, or all diverged
        verdict = None
    baseline = _baseline(verdict, study.plan.baseline)
    return Confirmed(
        slots=sibling.slots.counts(),
        runs=fresh.runs,
        verdict=verdict,
        baseline=baseline,
        reached=None
        if verdict is None or baseline in (None, verdict.chosen)
        else _reached(fresh.ended[verdict.chosen], fresh.ended[baseline], study.facts.direction),
        test=_test_means(fresh, study.facts.metric),
        absent=_without_a_complete_trial(study),
    )


def _baseline(verdict: Verdict | None, family: str) -> int | None:
    """Trial number of the baseline's finalist; of several, the best."""
    standings = () if verdict is None else verdict.standings
    return next((each.trial for each in standings if each.family == family), None)


def _reached(
    chosen: Mapping[int, Record], baseline: Mapping[int, Record], direction: Direction
) -> int | None:
    """First epoch from which ``chosen``'s mean stays at least as good as ``baseline``'s final mean.

    Both map seeds to runs; means are over the seeds that both completed. None if there is no such
    epoch.
    """
    sign = sign_of(direction)
    shared = [
        seed
        for seed in chosen.keys() & baseline.keys()
        if "complete" == chosen[seed].state == baseline[seed].state
    ]
    if not shared:
        return None
    mark = sum(sign * baseline[seed].values[baseline[seed].epoch] for seed in shared)
    reached = None
    for epoch in sorted(chosen[shared[0]].values, reverse=True):
        if sum(sign * chosen[seed].values[epoch] for seed in shared) > mark:
            break
        reached = epoch
    return reached


def _without_a_complete_trial(study: Study) -> tuple[str, ...]:
    complete = {each.family for each in study.history.records() if each.state == "complete"}
    return tuple(family for family in study.plan.searched if family not in complete)


def _test_means(fresh: Fresh, metric: str) -> dict[int, float]:
    """Mean test metric by trial; runs without one are skipped, as of loops without a test split."""
    tested = {
        trial: [run.test[metric] for run in of_trial.values() if metric in run.test]
        for trial, of_trial in fresh.ended.items()
    }
    return {trial: sum(each) / len(each) for trial, each in tested.items() if each}
