"""The space of a study: each family's own ranges under the plan's bounds, for the task at hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from clrsearch.errors import PlanError, ScheduleError
from clrsearch.schedules import FAMILIES, Choice, Parameter, Range, Schedule, Setting, Space, Value
from clrsearch.search.plan import Bound, StudyPlan, nearest
from clrsearch.tasks import TaskFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpace:
    """What may be tried: a space per family, and the setting that turns values to schedules."""

    setting: Setting
    families: Mapping[str, Space]

    def build(self, family: str, params: Mapping[str, Value]) -> Schedule:
        """The schedule of a family that the searched ``params`` stand for."""
        return FAMILIES[family].build(params, self.setting)

    def first(self, family: str) -> tuple[Mapping[str, Value], ...]:
        """The settings of a family that are tried before anything is sampled."""
        return tuple(FAMILIES[family].first(self.setting, self.families[family]))


def build_space(plan: StudyPlan, facts: TaskFacts) -> StudySpace:
    """The space of a plan for a task.

    Raises:
        PlanError: a bound is unknown, reversed or not allowed, or a family does not fit the epochs.
    """
    setting = Setting(
        epochs=facts.epochs,
        steps_per_epoch=facts.steps_per_epoch,
        own_rate=facts.own_rate,
        momentum=facts.momentum,
        stepsize=plan.stepsize,
    )
    families = {}
    for family in plan.searched:
        try:
            own = FAMILIES[family].space(setting)
        except ScheduleError as error:
            raise PlanError(f"epochs: {family} does not fit: {error}") from error
        space = _narrow_all(family, own, plan.bounds.get(family, {}), facts)
        for params in _corners(space):
            try:
                FAMILIES[family].build(params, setting)
            except ScheduleError as error:
                raise PlanError(
                    f"bounds.{family}: these bounds allow wrong values: {error}"
                ) from error
        families[family] = space
    return StudySpace(setting=setting, families=families)


def _narrow_all(
    family: str, space: Space, bounds: Mapping[str, Bound], facts: TaskFacts
) -> dict[str, Parameter]:
    for name in bounds:
        if name in space:
            continue
        key = f"bounds.{family}.{name}"
        if "momentum" in name and facts.momentum == "none":
            raise PlanError(f"{key}: the task's optimizer, {facts.optimizer}, has no momentum")
        raise PlanError(f"{key}: {family} has no such parameter{nearest(name, space)}")
    return {
        name: _narrow(f"bounds.{family}.{name}", parameter, bounds[name])
        if name in bounds
        else parameter
        for name, parameter in space.items()
    }


def _narrow(key: str, parameter: Parameter, bound: Bound) -> Parameter:
    values = bound if isinstance(bound, tuple) else (bound,)
    domain = parameter.domain
    if isinstance(domain, Choice):
        for value in values:
            if value not in domain.options or type(value) is not type(domain.options[0]):
                listed = ", ".join(repr(option) for option in domain.options)
                raise PlanError(f"{key}: {value!r} is none of {listed}")
        options = tuple(value for value in domain.options if value in values)
        return replace(parameter, domain=Choice(options=options))
    return replace(parameter, domain=_narrow_range(key, domain, values))


def _narrow_range(key: str, domain: Range, values: tuple[object, ...]) -> Range:
    numbers = [
        value
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    if len(numbers) != len(values) or not 1 <= len(values) <= 2:
        raise PlanError(f"{key}: one number or two are wanted, not {_listed(values)}")
    low, high = numbers[0], numbers[-1]
    if low > high:
        raise PlanError(f"{key}: the lower end {low} is above the upper end {high}")
    if domain.integer and not all(float(number).is_integer() for number in numbers):
        raise PlanError(f"{key}: whole numbers are wanted, not {_listed(values)}")
    if domain.integer and (low < domain.low or high > domain.high):
        raise PlanError(
            f"{key}: {_listed(values)} is not within {domain.low:g} to {domain.high:g}, "
            "which the number of epochs allows"
        )
    if domain.log and not low > 0:
        raise PlanError(f"{key}: must be positive, for it is searched on a log scale, not {low}")
    return replace(domain, low=low, high=high)


def _listed(values: tuple[object, ...]) -> str:
    return str(list(values)) if len(values) != 1 else repr(values[0])


def _corners(space: Space) -> Iterator[dict[str, Value]]:
    """Every combination of the ends of the ranges: where these are allowed, all values are."""
    ends = [[(name, end) for end in dict.fromkeys(p.domain.extremes)] for name, p in space.items()]
    for combination in itertools.product(*ends):
        params: dict[str, Value] = {}
        for name, value in combination:
            if space[name].applies(params):
                params[name] = value
        yield params
