"""What a search strategy plays against: recorded runs, billed by the epoch.

A strategy proposes values, has schedules run on seeds, and names one in the end. Seeds are dealt
anew for every repetition: 4 to search with, 8 fresh ones to confirm with, and the rest, which no
strategy sees, to judge by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clrsearch.schedules import Choice, Parameter, Value
from clrsearch.search import StudySpace
from clrsearch.tasks import TaskFacts
from replay.surface import Array, Surface, bounded, curve
from replay.tables import Table

SEARCH_SEEDS, FRESH_SEEDS = 4, 8


class Spent(Exception):
    """A strategy has asked for more epochs than are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What can be run: a family and its values; ``row`` is where it is recorded, if it is."""

    family: str
    params: Mapping[str, Value]
    row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run: the losses after the epochs that were trained, and how it ended.

    ``values`` are finite; a run that ``diverged`` has none for its last epoch.
    """

    values: tuple[float, ...]
    diverged: bool
    stopped: bool

    @property
    def score(self) -> float:
        """The loss after the last epoch; infinite where there is none."""
        return math.inf if self.diverged or self.stopped else self.values[-1]


class Task(Protocol):
    """A recorded task: how to run schedules on it, and what they are worth."""

    name: str
    facts: TaskFacts
    space: StudySpace
    seeds: int

    def admit(self, family: str, params: Mapping[str, Value], used: set[int]) -> Schedule:
        """The schedule to run for proposed values, of recorded ones none of the ``used`` rows."""

    def curve(self, schedule: Schedule, seed: int) -> Array:
        """The losses of a run after each epoch, NaN once it has diverged."""

    def regret(self, schedule: Schedule, unseen: Sequence[int]) -> float:
        """How much worse it is than the best, in distances from the best to the median one."""


class Pool:
    """Recorded schedules only: what is proposed becomes the nearest of its family not yet run."""

    def __init__(self, table: Table, space: StudySpace) -> None:
        self.name, self.facts, self.space = table.name, table.facts, space
        self.seeds = table.values.shape[1]
        self._table = table
        self._bounded = bounded(table.values)[:, :, -1]  # (schedules, seeds)
        self._curves = np.stack([curve(space.build(*each), space) for each in table.schedules])
        means = self._bounded.mean(axis=1)
        self._scale = float(np.median(means) - means.min())

    def admit(self, family: str, params: Mapping[str, Value], used: set[int]) -> Schedule:
        """By the distance in the family's values; once all those are used, by that of the rates.

        Once all schedules are used, they may be used again.
        """
        every = range(len(self._table.schedules))
        rows = [row for row in every if row not in used] or list(every)
        own = [row for row in rows if self._table.schedules[row][0] == family]
        if own:
            space = self.space.families[family]
            row = min(own, key=lambda row: distance(space, params, self._table.schedules[row][1]))
        else:
            at = curve(self.space.build(family, params), self.space)
            row = min(rows, key=lambda row: float(((self._curves[row] - at) ** 2).sum()))
        family, params = self._table.schedules[row]
        return Schedule(family=family, params=params, row=row)

    def curve(self, schedule: Schedule, seed: int) -> Array:
        """As recorded."""
        assert schedule.row is not None
        return self._table.values[schedule.row, seed].astype(np.float64)

    def regret(self, schedule: Schedule, unseen: Sequence[int]) -> float:
        """On the unseen seeds, against the schedule that is best on all others."""
        assert schedule.row is not None
        seen = [seed for seed in range(self.seeds) if seed not in unseen]
        best = int(self._bounded[:, seen].mean(axis=1).argmin())
        means = self._bounded[:, list(unseen)].mean(axis=1)
        return float(means[schedule.row] - means[best]) / self._scale


class Modelled:
    """Any schedule, scored by the surface."""

    def __init__(self, table: Table, space: StudySpace) -> None:
        self.name, self.facts, self.space = table.name, table.facts, space
        self.seeds = table.values.shape[1]
        self._surface = Surface(table, space)
        means = np.array([self._surface.mean(*each)[-1] for each in table.schedules])
        self._best = float(means.min())
        self._scale = float(np.median(means)) - self._best

    def admit(self, family: str, params: Mapping[str, Value], used: set[int]) -> Schedule:
        """As proposed."""
        return Schedule(family=family, params=params)

    def curve(self, schedule: Schedule, seed: int) -> Array:
        """By the surface."""
        return self._surface.run(schedule.family, schedule.params, seed)

    def regret(self, schedule: Schedule, unseen: Sequence[int]) -> float:
        """By the surface's mean, against the best recorded one's."""
        mean = float(self._surface.mean(schedule.family, schedule.params)[-1])
        return (mean - self._best) / self._scale


def distance(
    space: Mapping[str, Parameter], one: Mapping[str, Value], other: Mapping[str, Value]
) -> float:
    """Between two values of a family: each range is 1 long, a choice or what one lacks counts 1."""
    total = 0.0
    for name, parameter in space.items():
        if name not in one or name not in other:
            total += (name in one) != (name in other)
        elif isinstance(parameter.domain, Choice):
            total += one[name] != other[name]
        else:
            scale = math.log if parameter.domain.log else float
            low, high, a, b = (
                scale(each)
                for each in (parameter.domain.low, parameter.domain.high, one[name], other[name])
            )
            total += ((a - b) / (high - low)) ** 2 if high > low else 0.0
    return total


class Game:
    """One repetition: a task, a deal of the seeds, and a budget."""

    def __init__(self, task: Task, *, runs: int, repetition: int) -> None:
        """``runs`` is the budget in whole runs; it is billed in epochs."""
        dealt = np.random.default_rng(repetition).permutation(task.seeds)
        self._seeds = [int(seed) for seed in dealt[: SEARCH_SEEDS + FRESH_SEEDS]]
        self._unseen = [int(seed) for seed in dealt[SEARCH_SEEDS + FRESH_SEEDS :]]
        self._task = task
        self._used: set[int] = set()
        self.name, self.facts, self.space = task.name, task.facts, task.space
        self.runs = runs
        self.left = runs * task.facts.epochs
        """Epochs that may still be trained."""

    def affords(self, runs: int) -> bool:
        """Whether so many whole runs are left."""
        return self.left >= runs * self.facts.epochs

    def admit(self, family: str, params: Mapping[str, Value]) -> Schedule:
        """The schedule that is run for proposed values."""
        schedule = self._task.admit(family, params, self._used)
        if schedule.row is not None:
            self._used.add(schedule.row)
        return schedule

    def run(
        self,
        schedule: Schedule,
        seed: int,
        stop: Callable[[Sequence[float]], bool] = lambda values: False,
    ) -> Outcome:
        """Train a schedule on a seed: 0 to 3 are those of the search, 4 to 11 fresh ones.

        ``stop`` is asked after every epoch but the last, with the losses so far. A run that
        diverges is paid up to the epoch in which it does.

        Raises:
            Spent: not a single epoch, or not all that it takes, is left.
        """
        values: list[float] = []
        for value in self._task.curve(schedule, self._seeds[seed]):
            if not self.left:
                raise Spent
            self.left -= 1
            if math.isnan(value):
                return Outcome(values=tuple(values), diverged=True, stopped=False)
            values.append(float(value))
            if len(values) < self.facts.epochs and stop(values):
                return Outcome(values=tuple(values), diverged=False, stopped=True)
        return Outcome(values=tuple(values), diverged=False, stopped=False)

    def regret(self, schedule: Schedule) -> float:
        """What the strategy is judged by."""
        return self._task.regret(schedule, self._unseen)
