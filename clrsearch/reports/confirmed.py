"""A confirmation at one moment, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clrsearch.errors import StudyError
from clrsearch.search import Fresh, Record, Study, Verdict, expected_of, judge, read_fresh
from clrsearch.storage import SlotState, budget, unfinished
from clrsearch.tasks import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """How far a confirmation has come.

    ``slots`` counts its runs by state and ``runs`` are those that have begun. ``verdict`` is None
    before every finalist has run with one seed; of finalists with equal traces the first stands for
    all, with the runs of all. ``baseline`` is the trial of the baseline's finalist, and ``reached``
    the epoch from which on the recommended schedule is at least as good as that is at its end, by
    the mean of the seeds that both have run with; None where it never is, or is the baseline.
    ``test`` holds the mean of the metric on the test
    split by the finalist's trial, over its complete runs. ``absent`` are the families that were
    searched and have no complete trial, so that none of theirs is a finalist.
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
        """How many runs were asked for."""
        return budget(self.slots)

    @property
    def left(self) -> int:
        """How many of them have not ended."""
        return unfinished(self.slots)


def confirmed(study: Study) -> Confirmed | None:
    """The confirmation of a search, if it has begun."""
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
    except StudyError:  # no seed that all have run with, or none that any has survived
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
    """The baseline's finalist; the better one of two."""
    standings = () if verdict is None else verdict.standings
    return next((each.trial for each in standings if each.family == family), None)


def _reached(
    chosen: Mapping[int, Record], baseline: Mapping[int, Record], direction: Direction
) -> int | None:
    """From which epoch on one's mean is as good as the other's at the end, if it ever is.

    Both are runs by seed.
    """
    sign = 1.0 if direction == "minimize" else -1.0
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
    """A loop of the user's own may know no test split."""
    tested = {
        trial: [run.test[metric] for run in of_trial.values() if metric in run.test]
        for trial, of_trial in fresh.ended.items()
    }
    return {trial: sum(each) / len(each) for trial, each in tested.items() if each}
