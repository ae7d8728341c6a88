"""The surrogate's posterior given a study's trials, for schedules run or not yet run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from clrsearch.search.history import Record, telling
from clrsearch.search.plan import ANY, StudyPlan
from clrsearch.search.space import StudySpace
from clrsearch.search.surrogate import Runs, Surrogate, SurrogateError, matern
from clrsearch.search.trace_features import Points
from clrsearch.search.traces import Traces
from clrsearch.tasks import Direction, sign_of

ALIKE = 0.99  # prior correlation of two schedules' scores above which they count as alike
TOLD = 500  # maximum number of finished trials the surrogate sees
UNDER_WAY = 200  # maximum number of running trials it sees


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The inputs of a proposal: the plan, the space, and how schedules are compared."""

    plan: StudyPlan
    space: StudySpace
    traces: Traces
    points: Points
    direction: Direction

    def families(self, label: str) -> tuple[str, ...]:
        """The families a slot with this label may try."""
        if label != ANY:
            return (label,)
        return tuple(each for each in self.plan.families if self.space.is_formula(each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Expected score of a schedule on a new seed, with its standard deviation in metric units."""

    mean: float
    deviation: float


def posterior(
    records: Sequence[Record],
    runs: Sequence[Record],
    searched: Searched,
    *,
    earlier: Sequence[Surrogate] = (),
) -> Surrogate:
    """Fit the surrogate to the search's ``records`` and to the ``runs`` of its confirmation.

    Schedules defined by a user's function are left out. ``earlier`` are the surrogates of earlier
    studies; only proposals use them.

    Raises:
        SurrogateError: too few trials are complete.
    """
    records = [record for record in records if searched.space.is_formula(record.family)]
    some = telling(records, searched.direction, most=TOLD)
    by_number = {record.number: record for record in records}
    confirmed = [
        run
        for run in runs
        if run.finalist in by_number and (run.state == "complete" or run.diverged)
    ]
    told = [record for record in some if record.state == "complete" or record.diverged]
    pruned = [record for record in some if record.state == "pruned" and not record.diverged]
    running = [record for record in records if record.state == "running"][-UNDER_WAY:]
    sign = sign_of(searched.direction)
    scores = [
        np.nan if each.diverged or each.value is None else sign * each.value
        for each in (*told, *confirmed)
    ]
    schedules = [*told, *(by_number[run.finalist] for run in confirmed if run.finalist is not None)]
    return Surrogate(
        _runs(schedules, searched.points, [*told, *confirmed]),
        np.array(scores),
        pruned=_runs(pruned, searched.points, pruned),
        running=_runs(running, searched.points, running),
        earlier=earlier,
    )


def _runs(schedules: Sequence[Record], points: Points, begun: Sequence[Record]) -> Runs:
    seeds = np.array([each.seed_index for each in begun], dtype=np.int64)
    return Runs(points=points.of_records(schedules), seeds=seeds)


def expected_of(
    finalists: Sequence[Record], believed: Mapping[int, Belief]
) -> dict[int, float] | None:
    """Expected scores of the finalists on further seeds, by trial; None unless all are known."""
    if any(each.number not in believed for each in finalists):
        return None
    return {each.number: believed[each.number].mean for each in finalists}


def alike(one: Record, other: Record, searched: Searched) -> bool:
    """Whether two schedules are so similar that their scores are almost perfectly correlated."""
    if not all(searched.space.is_formula(each.family) for each in (one, other)):
        return False
    points = searched.points.of_records([one, other])
    return float(matern(pdist(points))[0]) > ALIKE


def beliefs(
    records: Sequence[Record], runs: Sequence[Record], searched: Searched
) -> dict[int, Belief]:
    """Belief about each complete trial, by number; empty if no surrogate can be fitted.

    ``runs`` are those of the confirmation.
    """
    known = [record for record in records if searched.space.is_formula(record.family)]
    complete = [record for record in known if record.state == "complete"]
    try:
        surrogate = posterior(records, runs, searched)
    except SurrogateError:
        return {}
    points = searched.points.of_records(complete)
    means, deviations = surrogate.mean(points), surrogate.deviation(points)
    sign = sign_of(searched.direction)
    return {
        record.number: Belief(mean=float(sign * mean), deviation=float(deviation))
        for record, mean, deviation in zip(complete, means, deviations, strict=True)
    }
