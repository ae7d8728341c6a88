"""Preview schedules without training: a family with given values, or a study's best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from clrsearch.errors import PlanError
from clrsearch.plots import Figure, ScheduleCurve, schedules_figure
from clrsearch.results import number
from clrsearch.schedules import FAMILIES, Manual, Schedule, Trace, trace
from clrsearch.search import (
    Studies,
    Study,
    StudyPlan,
    StudySpace,
    build_space,
    load_plan,
    nearest,
    require_size,
)
from clrsearch.service.look import chosen
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate, load_rate_of
from clrsearch.storage import has_studies, open_database
from clrsearch.tasks import Spacing, TaskFacts

EPOCHS, STEPS_PER_EPOCH = 20, 100
BASE_LR = 0.1
"""Stands in for the learning rate of the task's optimizer, which sets a family's defaults."""
UNSET = "none"
"""Unsets a value of the default setting."""
PLAN_KEYS = ("manual", "stepsize")
HORIZON = ("horizon", "epochs", "steps_per_epoch", "function")
"""Fields of schedules that follow from the horizon or cannot be given as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """A schedule and its trace, with a distinct label per parameter group."""

    labels: tuple[str, ...]
    schedule: Schedule
    trace: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Schedules over the same length."""

    spacing: Spacing
    schedules: tuple[Previewed, ...]

    @property
    def curves(self) -> list[ScheduleCurve]:
        """The learning rates and momenta of every group of every schedule."""
        return [
            ScheduleCurve(
                label=label,
                rates=each.trace.rates[group],
                momenta=None if each.trace.momenta is None else each.trace.momenta[group],
            )
            for each in self.schedules
            for group, label in enumerate(each.labels)
        ]

    @property
    def figure(self) -> Figure:
        """A figure with all schedules overlaid."""
        spacing = self.spacing
        each = None if spacing.in_steps else spacing.steps_per_epoch
        return schedules_figure(self.curves, steps_per_epoch=each)


def preview(
    names: Sequence[str],
    values: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    steps_per_epoch: float | None = None,
    storage: Storage = None,
    task_dir: Path | None = None,
) -> Preview:
    """Preview the schedules of families or of studies' recommended trials.

    Args:
        names: families and studies.
        values: overrides of the families' default settings. A key is a searched parameter
            (``max_lr``, ``cycles``) or a field of the schedule (``step_size_up``), for all families
            that have it, or for one family as in ``cyclic.max_lr``. A list of values of a searched
            parameter gives one schedule per value; ``none`` unsets a value. The plan's ``manual``
            and ``stepsize`` are accepted too.
        epochs: number of epochs, by default 20; not with studies, which use their own.
        steps_per_epoch: steps per epoch, by default 100; not with studies.
        storage: the database.
        task_dir: folder of a custom rate function, by default the current one.

    Raises:
        PlanError: a name is neither a family nor a study, a value is unknown or invalid, or the
            studies differ in length.
        ScheduleError: values contradict each other.
    """
    found = {name: _of_study(name, storage, task_dir) for name in names if name not in FAMILIES}
    spacings = [study.spacing for study in found.values()]
    lengths = {(each.horizon, not each.in_steps and each.epochs) for each in spacings}
    if len(lengths) > 1 or (lengths and (epochs or steps_per_epoch)):
        own = "length" if any(each.in_steps for each in spacings) else "epochs and steps per epoch"
        raise PlanError(
            f"{', '.join(found)}: a study is shown over its own {own}, "
            "and all overlaid schedules must have the same"
        )
    epochs = EPOCHS if epochs is None else epochs
    steps_per_epoch = STEPS_PER_EPOCH if steps_per_epoch is None else steps_per_epoch
    if epochs < 1 or steps_per_epoch < 1:
        raise PlanError("epochs and steps_per_epoch must be at least 1")
    asked = Spacing(epochs=epochs, steps_per_epoch=steps_per_epoch)
    spacing = spacings[0] if spacings else asked
    facts = _facts(spacing)
    require_size(facts)
    given = dict(values or {})
    plan = load_plan(None, {key: given.pop(key) for key in PLAN_KEYS if key in given})
    sources = {name: _Family(name, plan, facts, task_dir) for name in names if name in FAMILIES}
    for key in given:
        if not any(source.key(key) for source in sources.values()):
            known = [name for source in sources.values() for name in source.names]
            hint = nearest(key, known) if known else ": a study's best schedule is shown unchanged"
            raise PlanError(f"--set {key}: no such value{hint}")
    shown: list[Previewed] = []
    for name in dict.fromkeys(names):
        if name in found:
            shown.extend(found[name].schedules)
        else:
            shown.extend(sources[name].schedules(given))
    return Preview(spacing=spacing, schedules=tuple(shown))


def _of_study(name: str, storage: Storage, task_dir: Path | None) -> Preview:
    """The schedule of a study that ``clrsearch best`` prints."""
    url = storage_url(storage)
    known = []
    if has_studies(url):
        with open_database(url) as database:
            known = Studies(database).searches()
            if name in known:
                return _best_of(Study.open(database, name), task_dir)
    raise PlanError(
        f"{name} is neither a schedule family nor a study{nearest(name, (*FAMILIES, *known))}"
    )


def _best_of(study: Study, task_dir: Path | None) -> Preview:
    trial, _ = chosen(study)
    bind_rate(study, trial.family, task_dir)
    label = f"{study.name}: {trial.family} (trial {trial.number})"
    groups = study.facts.groups
    best = Previewed(
        labels=tuple(f"{label}, {group}" for group in groups) if groups[1:] else (label,),
        schedule=study.space.build(trial.family, trial.params),
        trace=study.trace(trial.family, trial.params),
    )
    return Preview(spacing=study.facts.spacing, schedules=(best,))


class _Family:
    """A family, and the conversion of given values into its schedules."""

    def __init__(self, name: str, plan: StudyPlan, facts: TaskFacts, task_dir: Path | None) -> None:
        self._name = name
        manual = plan.manual if name == Manual.family else None
        alone = {"families": (name,), "baseline": name, "manual": manual}
        self._plan = plan.model_copy(update=alone)
        self._facts = facts
        loaded = load_rate_of(self._plan, task_dir)
        self._function = None if loaded is None else loaded.function
        self._searched = self._space({}).families[name]
        of_schedule = {each.name for each in fields(FAMILIES[name])}  # type: ignore[arg-type]
        self.names = (*self._searched, *sorted(of_schedule - {*self._searched, *HORIZON}))

    def key(self, key: str) -> str | None:
        """The name of this family's value that ``key`` refers to, with or without the prefix.

        None if the family has no such value.
        """
        name = key.removeprefix(f"{self._name}.")
        return name if name in self.names else None

    def schedules(self, given: Mapping[str, Any]) -> Iterator[Previewed]:
        """Yield one schedule per combination of the searched values given as lists."""
        own = {name: value for key, value in given.items() if (name := self.key(key))}
        several = {
            name: value if isinstance(value, list) else [value]
            for name, value in own.items()
            if name in self._searched and value != UNSET
        }
        for name, options in several.items():
            if not options:
                raise PlanError(f"--set {name}: the list is empty")
        rest = {name: _plain(value) for name, value in own.items() if name not in several}
        for combination in itertools.product(*several.values()):
            values = dict(zip(several, combination, strict=True))
            schedule = self._schedule(values, rest)
            told = [f"{name} {number(values[name])}" for name in values if len(several[name]) > 1]
            yield Previewed(
                labels=(", ".join([self._name, *told]),),
                schedule=schedule,
                trace=trace(schedule, self._facts.horizon),
            )

    def _schedule(self, values: Mapping[str, Any], rest: Mapping[str, Any]) -> Schedule:
        space = self._space(values)
        params = space.seed_points(self._name)[0]
        for name in values:
            if name not in params:
                raise PlanError(f"{self._name}.{name} has no effect with the other values")
        schedule: Any = space.build(self._name, params)
        try:
            return cast(Schedule, replace(schedule, **rest))
        except TypeError as error:
            wrong = ", ".join(f"{name} {value!r}" for name, value in rest.items())
            raise PlanError(f"{self._name} does not accept {wrong}: {error}") from error

    def _space(self, values: Mapping[str, Any]) -> StudySpace:
        plan = self._plan.model_copy(update={"bounds": {self._name: values}})
        return build_space(plan, self._facts, self._function)


def _plain(value: Any) -> Any:
    """Convert a value given as text or list into a field's value."""
    if value == UNSET:
        return None
    return tuple(value) if isinstance(value, list) else value


def _facts(spacing: Spacing) -> TaskFacts:
    """Facts of a generic task whose optimizer has momentum."""
    return TaskFacts(
        **spacing.model_dump(),
        metric="loss",
        direction="minimize",
        batch_size=1,
        ratios=(1.0,),
        groups=("all",),
        base_lr=BASE_LR,
        momentum="momentum",
        optimizer="SGD(momentum=0.9)",
        source="",
    )
