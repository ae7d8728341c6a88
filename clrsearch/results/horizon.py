"""What a study of several lengths has found: the best schedule at each, and what a length costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from clrsearch.search import EPOCHS, Record, Study, held_until
from clrsearch.tasks import Direction, sign_of

LEVEL = 0.05
Cell = tuple[float, str, int]
"""The peak rate, the shape of the decay, and the length of the runs of some seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLength:
    """The best schedule of a length.

    Attributes:
        epochs: the length.
        trial: one of its trials.
        rate: its peak rate.
        shape: the shape of its decay.
        decay: the number of epochs that its decay takes.
        scores: its score on each seed.
        mean: their mean.
        low: lower end of the mean's 95 % interval.
        high: upper end.
        held: the epochs that a held rate needs for the same score; None if it needs more than any
            has been held for.
    """

    epochs: int
    trial: Record = field(repr=False)
    rate: float
    shape: str
    decay: float
    scores: Mapping[int, float]
    mean: float
    low: float
    high: float
    held: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """The best schedules by length.

    Attributes:
        metric: the metric.
        direction: whether it is minimized or maximized.
        lengths: the best schedule of each length that has one, the shortest first.
        held: the mean score of the best held rate after each epoch.
        rates: the peak rates that were tried.
        trained: the number of epochs that were trained ...
        shared: ... and of those that were not, because another trial had trained them.
        left: the number of trials that have not ended.
    """

    metric: str
    direction: Direction
    lengths: tuple[AtLength, ...]
    held: Mapping[int, float] = field(repr=False)
    rates: tuple[float, ...]
    trained: int
    shared: int
    left: int

    def nearest(self, epochs: int) -> AtLength:
        """The best schedule of the length that differs by the smallest factor."""
        return min(self.lengths, key=lambda each: abs(math.log(each.epochs / epochs)))

    def at(self, epochs: int) -> AtLength | None:
        """The best schedule of one length; None if there is none."""
        return next((each for each in self.lengths if each.epochs == epochs), None)


def read_horizon(study: Study) -> Horizon:
    """What a study of several lengths has found so far."""
    records = study.history.records()
    direction = study.facts.direction
    cells = _cells(records)
    held = _held(cells, study, sign_of(direction))
    ended = [record for record in records if record.state != "running"]
    shared = sum(record.inherited for record in ended)
    return Horizon(
        metric=study.facts.metric,
        direction=direction,
        lengths=tuple(_best_by_length(cells, held, study)),
        held=held,
        rates=tuple(sorted({cell[0] for cell in cells})),
        trained=sum(record.epoch for record in ended) - shared,
        shared=shared,
        left=study.slots.unfinished(),
    )


def _cells(records: Sequence[Record]) -> dict[Cell, dict[int, Record]]:
    """The trials by schedule and seed; those that failed are left out."""
    found: dict[Cell, dict[int, Record]] = {}
    for record in records:
        if record.state in ("complete", "pruned"):
            params = record.params
            cell = (float(params["lr"]), str(params["shape"]), int(params[EPOCHS]))
            found.setdefault(cell, {})[record.seed_index] = record
    return found


def _whole(cells: Mapping[Cell, Mapping[int, Record]], study: Study) -> dict[Cell, list[Record]]:
    """The schedules that have run on all seeds and diverged on none."""
    assert study.plan.horizon is not None
    return {
        cell: [runs[seed] for seed in sorted(runs)]
        for cell, runs in cells.items()
        if len(runs) == study.plan.horizon.seeds
        and all(run.state == "complete" for run in runs.values())
    }


def _best_by_length(
    cells: Mapping[Cell, Mapping[int, Record]], held: Mapping[int, float], study: Study
) -> Iterator[AtLength]:
    sign = sign_of(study.facts.direction)
    whole = _whole(cells, study)
    scores = {cell: [float(run.value or 0.0) for run in runs] for cell, runs in whole.items()}
    for epochs in sorted({cell[2] for cell in whole}):
        of_length = [cell for cell in whole if cell[2] == epochs]
        best = min(of_length, key=lambda cell: sign * float(np.mean(scores[cell])))
        rate, shape, _ = best
        mean = float(np.mean(scores[best]))
        alike = [scores[cell] for cell in of_length if cell[0] == rate]
        half = _half_interval(alike)
        first = whole[best][0]
        reached = [epoch for epoch, score in held.items() if sign * score <= sign * mean]
        yield AtLength(
            epochs=epochs,
            trial=first,
            rate=rate,
            shape=shape,
            decay=float(first.params["decay_share"]) * epochs,
            scores={run.seed_index: float(run.value or 0.0) for run in whole[best]},
            mean=mean,
            low=mean - half,
            high=mean + half,
            held=min(reached, default=None),
        )


def _half_interval(schedules: Sequence[Sequence[float]]) -> float:
    """Half the 95 % interval of a schedule's mean; the variance is that of several together."""
    seeds = len(schedules[0])
    variance = float(np.mean([np.var(each, ddof=1) for each in schedules]))
    freedom = len(schedules) * (seeds - 1)
    return float(stats.t.ppf(1 - LEVEL / 2, freedom)) * math.sqrt(variance / seeds)


def _held(
    cells: Mapping[Cell, Mapping[int, Record]], study: Study, sign: float
) -> dict[int, float]:
    """The mean score of the best held rate after each epoch, in trials before their decay."""
    means: dict[int, list[float]] = {}
    for rate in {cell[0] for cell in cells}:
        whole = {cell: runs for cell, runs in _whole(cells, study).items() if cell[0] == rate}
        until = {cell: held_until(runs[0].params, study.facts) for cell, runs in whole.items()}
        last = max(whole, key=until.__getitem__, default=None)
        if last is None:
            continue
        for epoch in range(1, until[last] + 1):
            mean = float(np.mean([run.values[epoch] for run in whole[last]]))
            means.setdefault(epoch, []).append(mean)
    return {epoch: sign * min(sign * mean for mean in found) for epoch, found in means.items()}
