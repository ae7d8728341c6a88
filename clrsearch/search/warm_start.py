"""Warm start: what a study takes over from earlier studies of tasks that may be like its own.

Their finalists are tried first, with the same shares of the run and the same rates relative to the
task's own; surrogates of their runs guide the proposals. All of it is copied when the study is
created, so it does not depend on the earlier studies any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import zip_longest
from typing import Literal, NamedTuple
from uuid import UUID

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from clrsearch.schedules import Manual, Momentum, ScheduleFree, Setting, Value, settings_near
from clrsearch.search.history import Record
from clrsearch.search.space import StudySpace
from clrsearch.search.study_record import StudyRecord
from clrsearch.search.surrogate import Runs, Surrogate, SurrogateError
from clrsearch.search.trace_features import Points
from clrsearch.tasks import Direction, sign_of

MOST_RUNS = 400  # copied from all earlier studies together, and at most ...
MOST_OF_ONE = 200  # ... from one of them
PIECE = 25_000  # characters per stored piece: at most 50 kB even if JSON escapes each of them
RATES = ("lr", "max_lr")  # the parameters that are learning rates

Schedule = tuple[str, Mapping[str, Value]]
"""A family and its values."""


class EarlierRun(NamedTuple):
    """A run of an earlier study; its score is None if it diverged."""

    family: str
    params: dict[str, Value]
    seed: int
    score: float | None


class EarlierStudy(BaseModel):
    """What is copied of an earlier study: its runs, and what gives their values a meaning.

    ``finalists`` are families and values, the recommended one first.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uuid: UUID
    direction: Direction
    epochs: int
    steps_per_epoch: float
    base_lr: float
    momentum: Momentum
    stepsize: Literal["whole-cycles", "integers"]
    finalists: tuple[tuple[str, dict[str, Value]], ...]
    runs: tuple[EarlierRun, ...]

    @property
    def setting(self) -> Setting:
        """The setting in which its schedules were built."""
        return Setting(
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            base_lr=self.base_lr,
            momentum=self.momentum,
            stepsize=self.stepsize,
        )


_STUDIES = TypeAdapter(tuple[EarlierStudy, ...])


def remembered(
    study: StudyRecord,
    finalists: Sequence[Record],
    records: Sequence[Record],
    confirmed: Sequence[Record],
    *,
    among: int = 1,
) -> EarlierStudy:
    """Copy what a new study takes over from this one.

    Hand-written rates are left out: they are a study's own.

    Args:
        study: the earlier study.
        finalists: its schedules to try first, the best first.
        records: its trials.
        confirmed: the runs of its confirmation.
        among: the number of earlier studies that share the room for runs.
    """
    by_number = {each.number: each for each in records if each.family != Manual.family}
    schedules = [(each, by_number.get(each.number)) for each in records]
    schedules += [
        (each, None if each.finalist is None else by_number.get(each.finalist))
        for each in confirmed
    ]
    runs = [
        EarlierRun(of.family, dict(of.params), run.seed_index, _score(run))
        for run, of in schedules
        if of is not None and (run.diverged or run.state == "complete")
    ]
    most = min(MOST_OF_ONE, MOST_RUNS // among)
    return EarlierStudy(
        name=study.name,
        uuid=study.uuid,
        direction=study.facts.direction,
        epochs=study.facts.epochs,
        steps_per_epoch=study.facts.steps_per_epoch,
        base_lr=study.facts.base_lr,
        momentum=study.facts.momentum,
        stepsize=study.plan.stepsize,
        finalists=tuple(
            (each.family, dict(each.params)) for each in finalists if each.number in by_number
        ),
        runs=tuple(best_and_a_spread(runs, study.facts.direction, most)),
    )


def _score(run: Record) -> float | None:
    return None if run.diverged else run.value


def best_and_a_spread(
    runs: Sequence[EarlierRun], direction: Direction, most: int
) -> list[EarlierRun]:
    """At most so many runs: the better half of them the best, the others evenly by rank."""
    if len(runs) <= most:
        return list(runs)
    sign = sign_of(direction)
    scores = [np.inf if each.score is None else sign * each.score for each in runs]
    ranked = [int(index) for index in np.argsort(scores, kind="stable")]
    best, rest = ranked[: most // 2], ranked[most // 2 :]
    spread = np.linspace(0, len(rest) - 1, most - len(best)).astype(int)
    kept = {*best, *(rest[place] for place in spread)}
    return [each for index, each in enumerate(runs) if index in kept]


def packed(studies: Sequence[EarlierStudy]) -> list[str]:
    """The studies as pieces of text that fit into columns of 64 kB."""
    text = json.dumps(_STUDIES.dump_python(tuple(studies), mode="json"))  # a byte per character
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def unpacked(pieces: Sequence[str]) -> tuple[EarlierStudy, ...]:
    """Invert :func:`packed`.

    Raises:
        ValueError: a piece is damaged.
    """
    return _STUDIES.validate_json("".join(pieces))


def translated(schedule: Schedule, study: EarlierStudy, space: StudySpace) -> Schedule | None:
    """The schedule of an earlier study for the task of ``space``; None without its family there.

    Shares of the run stay, rates keep their ratio to the task's own, and what is out of bounds is
    clipped.
    """
    family, params = schedule
    if family not in space.families:
        return None
    setting = space.setting
    wanted: dict[str, Value] = {"cycle_momentum": False, **dict.fromkeys(space.multipliers, 1.0)}
    for first in space.seed_points(family)[:1]:  # for what the earlier study did not search
        wanted = {**first, **wanted}
    wanted |= params
    ratio = setting.base_lr / study.base_lr
    wanted |= {name: float(params[name]) * ratio for name in RATES if name in params}
    if "stepsize" in params:
        wanted["cycles"] = round(study.epochs / (2 * float(params["stepsize"])))
        wanted["stepsize"] = round(float(params["stepsize"]) * setting.epochs / study.epochs)
    elif "cycles" in params:
        wanted["stepsize"] = round(setting.epochs / (2 * float(params["cycles"])))
    (near,) = settings_near(space.families[family], wanted)
    return family, near


class WarmStart:
    """What the proposals of a study take from earlier ones."""

    def __init__(self, studies: Sequence[EarlierStudy], space: StudySpace) -> None:
        self._studies, self._space = studies, space

    @cached_property
    def finalists(self) -> tuple[Schedule, ...]:
        """The schedules to try first: the best of each study, then their second best, and so on."""
        rows = zip_longest(*(list(self._translated(each)) for each in self._studies))
        return tuple(each for row in rows for each in row if each is not None)

    def _translated(self, study: EarlierStudy) -> Iterator[Schedule]:
        for schedule in study.finalists:
            found = translated(schedule, study, self._space)
            if found is not None:
                yield found

    @property
    def left_out(self) -> list[str]:
        """A note per study some of whose finalists are not among this study's families."""
        notes = []
        for study in self._studies:
            families = dict.fromkeys(family for family, _ in study.finalists)
            absent = [family for family in families if family not in self._space.families]
            if absent:
                notes.append(
                    f"like {study.name}: left out its finalists of families that are not searched "
                    f"here: {', '.join(absent)}"
                )
        return notes

    @cached_property
    def surrogates(self) -> tuple[Surrogate, ...]:
        """A surrogate of each study that has enough runs."""
        found = (_surrogate(each, self._space) for each in self._studies)
        return tuple(each for each in found if each is not None)


def _surrogate(study: EarlierStudy, space: StudySpace) -> Surrogate | None:
    """Fit a study's runs by the features of what it ran, in its own setting.

    Translated values would be clipped or missing; the features mean the same for every task. Runs
    of Schedule-Free are left out where it is not searched, for there no feature sets them apart.
    """
    averages = ScheduleFree.family in space.families
    runs = [run for run in study.runs if averages or run.family != ScheduleFree.family]
    neutral = dict.fromkeys(space.multipliers, 1.0)
    own = replace(space, setting=study.setting)
    points = Points(own).of([(run.family, {**neutral, **run.params}) for run in runs])
    sign = sign_of(study.direction)
    scores = [np.nan if run.score is None else sign * run.score for run in runs]
    seeds = np.array([run.seed for run in runs], dtype=np.int64)
    try:
        return Surrogate(Runs(points=points, seeds=seeds), np.array(scores))
    except SurrogateError:
        return None
