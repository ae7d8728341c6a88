"""What a study of several lengths has found: the best schedule at each, and what a length costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from clrsearch.search import EPOCHS, Record, Study, held_until
from clrsearch.tasks import Direction, TaskFacts, sign_of

LEVEL = 0.05
FEWEST_SEEDS = 2
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
    sign = sign_of(study.facts.direction)
    runs = _comparable(records)
    held = _held(runs, study.facts, sign)
    ended = [record for record in records if record.state != "running"]
    shared = sum(record.inherited for record in ended)
    return Horizon(
        metric=study.facts.metric,
        direction=study.facts.direction,
        lengths=tuple(_best_by_length(runs, held, sign)),
        held=held,
        rates=tuple(sorted({float(record.params["lr"]) for record in records})),
        trained=sum(record.epoch for record in ended) - shared,
        shared=shared,
        left=study.slots.unfinished(),
    )


def _comparable(records: Sequence[Record]) -> dict[Cell, list[Record]]:
    """The runs of each schedule on the seeds that all have run on, two or more; else nothing.

    Schedules that diverged or failed on a seed are left out.
    """
    found: dict[Cell, dict[int, Record]] = {}
    unfit: set[Cell] = set()
    for record in records:
        params = record.params
        cell = (float(params["lr"]), str(params["shape"]), int(params[EPOCHS]))
        if record.state == "complete":
            found.setdefault(cell, {})[record.seed_index] = record
        elif record.diverged or record.final:
            unfit.add(cell)
    fit = {cell: runs for cell, runs in found.items() if cell not in unfit}
    seeds = sorted(set.intersection(*map(set, fit.values()))) if fit else []
    if len(seeds) < FEWEST_SEEDS:
        return {}
    return {cell: [runs[seed] for seed in seeds] for cell, runs in fit.items()}


def _best_by_length(
    runs: Mapping[Cell, Sequence[Record]], held: Mapping[int, float], sign: float
) -> Iterator[AtLength]:
    scores = {cell: [float(run.value or 0.0) for run in some] for cell, some in runs.items()}
    for epochs in sorted({cell[2] for cell in runs}):
        of_length = [cell for cell in runs if cell[2] == epochs]
        best = min(of_length, key=lambda cell: sign * float(np.mean(scores[cell])))
        rate, shape, _ = best
        mean = float(np.mean(scores[best]))
        half = _half_interval([scores[cell] for cell in of_length if cell[0] == rate])
        first = runs[best][0]
        reached = [epoch for epoch, score in held.items() if sign * score <= sign * mean]
        yield AtLength(
            epochs=epochs,
            trial=first,
            rate=rate,
            shape=shape,
            decay=float(first.params["decay_share"]) * epochs,
            scores={run.seed_index: float(run.value or 0.0) for run in runs[best]},
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


def _held(runs: Mapping[Cell, Sequence[Record]], facts: TaskFacts, sign: float) -> dict[int, float]:
    """The mean score of the best held rate after each epoch, in trials before their decay."""
    until = {cell: held_until(some[0].params, facts) for cell, some in runs.items()}
    means: dict[int, list[float]] = {}
    for rate in {cell[0] for cell in runs}:
        latest = max((cell for cell in runs if cell[0] == rate), key=until.__getitem__)
        for epoch in range(1, until[latest] + 1):
            mean = float(np.mean([run.values[epoch] for run in runs[latest]]))
            means.setdefault(epoch, []).append(mean)
    return {epoch: sign * min(sign * mean for mean in found) for epoch, found in means.items()}
