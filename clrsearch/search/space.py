"""A study's search space: each family's ranges for the task, narrowed by the plan's bounds."""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clrsearch.errors import PlanError, ScheduleError
from clrsearch.schedules import (
    FAMILIES,
    LARGEST_RATE,
    SHORT_CYCLES,
    SHORTEST,
    Choice,
    Cyclic,
    Manual,
    Parameter,
    Range,
    RateFunction,
    Schedule,
    Setting,
    Space,
    Value,
    is_short,
    settings_near,
)
from clrsearch.search.horizon_runs import EPOCHS, FAMILY, horizon_space
from clrsearch.search.plan import BASELINE, SEARCHED, Bound, StudyPlan, nearest
from clrsearch.search.rangetest import RangeTest
from clrsearch.tasks import Spacing, TaskFacts

GROUPS = "groups."
"""Prefix of a group's name in the name of its rate factor."""
RATES = ("lr", "max_lr", "scale")
"""Names of the parameter that scales all of a family's learning rates."""
MORE_EPOCHS = 20  # additional epochs to try when telling how many a family needs
MOST_RATES = 50_000_000
"""Maximum number of rates in a trace, over all groups: 400 MB, and a few times that at peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpace:
    """The search space per family, and the setting that turns values into schedules.

    Every family's space ends with the rate factors of the groups named in the plan. ``start`` are
    the rates with which families start, where they have no first settings of their own.
    """

    setting: Setting
    families: Mapping[str, Space]
    multipliers: Space
    start: Mapping[str, float] = field(default_factory=dict)

    def build(self, family: str, params: Mapping[str, Value]) -> Schedule:
        """Build the schedule of a family from the searched ``params``."""
        setting = self.setting
        if EPOCHS in params:
            setting = replace(setting, epochs=int(params[EPOCHS]))
        try:
            return FAMILIES[family].build(params, setting)
        except (LookupError, TypeError) as error:
            raise ScheduleError(f"cannot build {family} from {dict(params)}: {error}") from error

    def is_formula(self, family: str) -> bool:
        """Whether the family is a formula, not a user's function, which is not always loaded."""
        return family != Manual.family or not isinstance(self.setting.manual, str)

    def seed_points(self, family: str) -> tuple[Mapping[str, Value], ...]:
        """The settings of a family to try before sampling.

        Group rates are the task's own, or as close to them as the plan allows.
        """
        own = {
            name: parameter
            for name, parameter in self.families[family].items()
            if name not in self.multipliers
        }
        wanted = dict.fromkeys(self.multipliers, 1.0)
        (as_it_is,) = settings_near(self.multipliers, wanted)
        points = FAMILIES[family].seed_points(self.setting, own)
        if family in self.start:
            points = [{**points[0], rate_of(own): self.start[family]}]
        return tuple({**first, **as_it_is} for first in points)

    def multipliers_of(self, params: Mapping[str, Value]) -> dict[str, float]:
        """The searched rate factors by group name."""
        return {name.removeprefix(GROUPS): float(params[name]) for name in self.multipliers}

    def ratios(self, params: Mapping[str, Value], facts: TaskFacts) -> tuple[float, ...]:
        """The groups' rates relative to the first group's, with the searched factors applied."""
        factors = self.multipliers_of(params)
        return tuple(
            ratio * factors.get(name, 1.0)
            for name, ratio in zip(facts.groups, facts.ratios, strict=True)
        )


def rate_of(space: Space | Mapping[str, Value]) -> str:
    """The name of the parameter that scales all of a family's learning rates."""
    return next(name for name in space if name in RATES)


def require_size(facts: TaskFacts) -> None:
    """Reject a training length whose traces would not fit into memory.

    Raises:
        PlanError: naming the length.
    """
    groups = len(facts.ratios)
    if facts.horizon * groups > MOST_RATES:
        of = "" if groups == 1 else f" for {groups} parameter groups"
        length = f"epochs: {facts.epochs:,} epochs of {facts.steps_per_epoch:,} steps"
        if facts.in_steps:
            length = f"{'epochs' if facts.steps is None else 'steps'}: {facts.horizon:,} steps"
        raise PlanError(
            f"{length}{of} give "
            f"{facts.horizon * groups:,} learning rates; the limit is {MOST_RATES:,}"
        )


def fitting(plan: StudyPlan, facts: TaskFacts) -> tuple[StudyPlan, list[str]]:
    """Restrict a plan to the families that fit the task, with notes on what that means.

    Families named by the plan are kept; if they do not fit, they are rejected later.
    """
    setting = setting_of(plan, facts)
    if "families" in plan.model_fields_set:
        return plan, _on_cycles(plan.searched, setting)
    reasons = {each: why for each in plan.families if (why := misfit_reason(each, setting))}
    families = tuple(each for each in plan.families if each not in reasons)
    if not families:  # handled like named families
        return plan, []
    left_out = [f"left out: {each} ({why})" for each, why in reasons.items()]
    notes = [*left_out, *_on_cycles((*families, plan.baseline), setting)]
    return plan.model_copy(update={"families": families}), notes


def _on_cycles(families: Sequence[str], setting: Setting) -> list[str]:
    """A note if the cycles that are searched are shorter than usual."""
    short = setting.stepsize == "whole-cycles" and is_short(setting.epochs)
    if Cyclic.family not in families or not short:
        return []
    return [
        f"cyclic: {setting.epochs} {setting.unit}s are too few for stepsizes of {SHORTEST} "
        f"{setting.unit}s or more, so 1 to {SHORT_CYCLES} whole cycles are searched"
    ]


def build_space(
    plan: StudyPlan,
    facts: TaskFacts,
    rate_function: RateFunction | None = None,
    tested: RangeTest | None = None,
) -> StudySpace:
    """Build the search space of a plan for a task.

    Args:
        plan: the study's plan.
        facts: what is known of the task.
        rate_function: the function named by ``plan.manual``.
        tested: the range test, if the plan uses one.

    Raises:
        PlanError: a bound is unknown, reversed or not allowed, a family does not fit the epochs, or
            manual rates are given that no family uses.
    """
    if plan.manual is not None and Manual.family not in plan.searched:
        raise PlanError("manual: rates are given, but manual is not one of the families")
    bounds = tested.bounds(facts.base_lr) if tested is not None and plan.range_test else None
    setting = replace(setting_of(plan, facts), tested=bounds, rate_function=rate_function)
    multipliers = _multipliers(plan, facts)
    if plan.horizon is not None:
        if facts.validate_every is not None:
            raise PlanError("horizon: compares lengths in epochs, and validates after each")
        ranges = horizon_space(plan.horizon, facts)
        return StudySpace(setting=setting, families={FAMILY: ranges}, multipliers={})
    families = {}
    for family in plan.searched:
        bounded = frozenset(plan.bounds.get(family, ()))
        try:
            own = FAMILIES[family].space(replace(setting, bounded=bounded))
        except ScheduleError as error:
            ways_out = _ways_out(family, plan, setting, facts)
            raise PlanError(f"{family} does not fit: {error}{ways_out}") from error
        space = _narrow_all(family, own, plan.bounds.get(family, {}), facts)
        for params in _corners(space):
            try:
                FAMILIES[family].build(params, setting)
            except (ScheduleError, LookupError) as error:
                raise PlanError(
                    f"bounds.{family}: these bounds allow invalid values: {error}"
                ) from error
        families[family] = {**space, **multipliers}
    start = {family: _start(family, rate, families[family]) for family, rate in plan.start.items()}
    return StudySpace(setting=setting, families=families, multipliers=multipliers, start=start)


def _start(family: str, rate: float, space: Space) -> float:
    name = rate_of(space)
    domain = space[name].domain
    assert isinstance(domain, Range)
    if not domain.low <= rate <= domain.high:
        raise PlanError(
            f"start.{family}: {rate:g} is outside the bounds of {name}, {domain.low:g} to "
            f"{domain.high:g}"
        )
    return float(rate)


def setting_of(plan: StudyPlan, facts: TaskFacts) -> Setting:
    """What the families need to know of a plan and its task."""
    return Setting(
        epochs=facts.epochs,
        steps_per_epoch=facts.steps_per_epoch,
        base_lr=facts.base_lr,
        momentum=facts.momentum,
        unit=facts.unit,
        stepsize=plan.stepsize,
        manual=plan.manual,
    )


def _ways_out(family: str, plan: StudyPlan, setting: Setting, spacing: Spacing) -> str:
    """Advice, as further sentences, if a family only needs more epochs; otherwise empty."""
    more = range(setting.epochs + 1, setting.epochs + MORE_EPOCHS)
    enough = next((each for each in more if _fits(family, replace(setting, epochs=each))), None)
    if enough is None:
        return ""
    if family in plan.families:
        one, *others = (each for each in SEARCHED if _fits(each, setting))
        instead = f"search a family that fits, --set {shlex.quote(f'families={json.dumps([one])}')}"
        instead += f"; others that fit: {', '.join(others)}"
    else:
        instead = f"compare with --set baseline={BASELINE}"
    longer = f"--epochs {enough}"
    if spacing.steps is not None and spacing.validate_every is not None:
        longer = f"--set steps={enough * spacing.validate_every}"
    return f". Train longer, {longer} or more, or {instead}"


def _fits(family: str, setting: Setting) -> bool:
    return not misfit_reason(family, setting)


def misfit_reason(family: str, setting: Setting) -> str:
    """Why a family does not fit the setting; empty if it does."""
    try:
        FAMILIES[family].space(setting)
    except ScheduleError as error:
        return str(error)
    return ""


def _multipliers(plan: StudyPlan, facts: TaskFacts) -> Space:
    """The rate factors of the groups named in the plan."""
    first, *others = facts.groups
    found = {}
    for name, bound in plan.groups.items():
        key = f"{GROUPS}{name}"
        if name == first:
            raise PlanError(
                f"{key}: the first group follows the schedule's own rate, and other groups are "
                f"relative to it{nearest(name, others) if others else '; there is no other group'}"
            )
        if name not in others:
            has = nearest(name, others) if others else f"; it has only {first}"
            raise PlanError(f"{key}: the optimizer has no such group{has}")
        ends = bound if isinstance(bound, tuple) else (bound,)
        domain = Range(low=ends[0], high=ends[0], log=True)
        found[key] = Parameter(domain=_narrow_range(key, domain, ends))
    return found


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
        name: _narrow(f"bounds.{family}.{name}", parameter, bounds[name], facts.unit)
        if name in bounds
        else parameter
        for name, parameter in space.items()
    }


def _narrow(key: str, parameter: Parameter, bound: Bound, unit: str) -> Parameter:
    values = bound if isinstance(bound, tuple) else (bound,)
    domain = parameter.domain
    if isinstance(domain, Choice):
        for value in values:
            if value not in domain.options or type(value) is not type(domain.options[0]):
                listed = ", ".join(repr(option) for option in domain.options)
                raise PlanError(f"{key}: {value!r} is not one of {listed}")
        options = tuple(value for value in domain.options if value in values)
        return replace(parameter, domain=Choice(options=options))
    return replace(parameter, domain=_narrow_range(key, domain, values, unit))


def _narrow_range(
    key: str, domain: Range, values: tuple[object, ...], unit: str = "epoch"
) -> Range:
    numbers = [
        value
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    if len(numbers) != len(values) or not 1 <= len(values) <= 2:
        raise PlanError(f"{key}: expected one or two numbers, not {_listed(values)}")
    low, high = numbers[0], numbers[-1]
    if low > high:
        raise PlanError(f"{key}: the lower end {low} is above the upper end {high}")
    if high > LARGEST_RATE:
        raise PlanError(f"{key}: must be at most {LARGEST_RATE:g}, not {high:g}")
    if domain.integer and not all(float(number).is_integer() for number in numbers):
        raise PlanError(f"{key}: expected whole numbers, not {_listed(values)}")
    if low < high and domain.integer and (low < domain.low or high > domain.high):
        raise PlanError(
            f"{key}: {_listed(values)} is outside {domain.low:g} to {domain.high:g}, "
            f"the range that the number of {unit}s allows"
        )
    if domain.integer and low < 1:
        raise PlanError(f"{key}: must be at least 1, not {low}")
    if domain.log and not low > 0:
        raise PlanError(f"{key}: must be positive, not {low}: it is searched on a log scale")
    return replace(domain, low=low, high=high)


def _listed(values: tuple[object, ...]) -> str:
    return str(list(values)) if len(values) != 1 else repr(values[0])


def _corners(space: Space) -> Iterator[dict[str, Value]]:
    """All combinations of the ranges' ends: if these are valid, so are all values in between."""
    ends = [[(name, end) for end in dict.fromkeys(p.domain.extremes)] for name, p in space.items()]
    for combination in itertools.product(*ends):
        params: dict[str, Value] = {}
        for name, value in combination:
            if space[name].applies(params):
                params[name] = value
        yield params
