"""A confirmation at one moment, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clrsearch.errors import StudyError
from clrsearch.search import Record, Study, Verdict, judge, one_each
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
    runs: tuple[Record, ...]
    verdict: Verdict | None
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
    runs = tuple(sibling.history.records())
    finalists = [study.trial(number) for number in sorted(sibling.finalists())]
    candidates = one_each(finalists, study.traces.of)
    of_trace = {study.traces.of(each): each.number for each in candidates}
    stands_for: dict[int | None, int]
    stands_for = {each.number: of_trace[study.traces.of(each)] for each in finalists}
    ended: dict[int, dict[int, Record]] = {each.number: {} for each in candidates}
    for run in runs:
        if run.finalist in stands_for and run.state in ("complete", "pruned"):
            ended[stands_for[run.finalist]].setdefault(run.seed_index, run)
    scores = {
        trial: {seed: None if run.diverged else run.value for seed, run in of_trial.items()}
        for trial, of_trial in ended.items()
    }
    try:
        verdict = judge(
            candidates,
            scores,
            direction=study.facts.direction,
            expected=_expected(study, candidates),
            tolerance=study.plan.confirm.tolerance,
        )
    except StudyError:  # no seed that all have run with, or none that any has survived
        verdict = None
    baseline = _baseline(verdict, study.plan.baseline)
    return Confirmed(
        slots=sibling.slots.counts(),
        runs=runs,
        verdict=verdict,
        baseline=baseline,
        reached=None
        if verdict is None or baseline in (None, verdict.chosen)
        else _reached(ended[verdict.chosen], ended[baseline], study.facts.direction),
        test=_test_means(runs, stands_for, study.facts.metric),
        absent=_without_a_complete_trial(study),
    )


def _expected(study: Study, candidates: Sequence[Record]) -> Mapping[int, float] | None:
    """The candidates' scores on further seeds, as search and fresh seeds together have them."""
    believed = study.beliefs()
    if not all(each.number in believed for each in candidates):
        return None
    return {each.number: believed[each.number].mean for each in candidates}


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


def _test_means(
    runs: Sequence[Record], stands_for: Mapping[int | None, int], metric: str
) -> dict[int, float]:
    tested: dict[int, dict[int, float]] = {}
    for run in runs:
        # a loop of the user's own may know no test split
        if run.finalist in stands_for and run.state == "complete" and metric in run.test:
            of_seed = tested.setdefault(stands_for[run.finalist], {})
            of_seed.setdefault(run.seed_index, run.test[metric])
    return {finalist: sum(each.values()) / len(each) for finalist, each in tested.items()}
