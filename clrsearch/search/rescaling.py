"""A schedule for another batch size or length: its shares of the run stay, its rates are rescaled.

With batches k times as large, SGD takes rates k times as high: the linear rule (P. Goyal et al.,
"Accurate, Large Minibatch SGD", arXiv:1706.02677). Optimizers that normalize their steps take rates
sqrt(k) times as high (S. Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
Algorithms", arXiv:2205.10287; A. Krizhevsky, arXiv:1404.5997, argues for the root by the variance
of the gradient). Both rules keep the epochs, and hold up to a batch size that depends on the task
(S. McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162). Momentum,
betas and weight decay are left as they are, and no warm-up is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from clrsearch.errors import PlanError, ScheduleError
from clrsearch.schedules import (
    FAMILIES,
    HandWritten,
    Manual,
    Range,
    Schedule,
    Setting,
    Value,
)
from clrsearch.search.horizon_runs import EPOCHS
from clrsearch.search.plan import StudyPlan
from clrsearch.search.space import RATES, StudySpace, require_size
from clrsearch.tasks import Length, TaskFacts

IN_PROPORTION = ("SGD", "ASGD", "SGDW")
"""Optimizers whose steps are proportional to the gradient; all others count as adaptive."""
STEPSIZE = "stepsize"
"""The one searched length that is not a share of the run: half a cycle, in whole epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How rates follow the batch size: by its ratio to the power ``exponent``."""

    name: str
    exponent: float
    source: str


LINEAR = Rule(name="linear", exponent=1.0, source="Goyal et al., arXiv:1706.02677")
SQUARE_ROOT = Rule(name="square root", exponent=0.5, source="Malladi et al., arXiv:2205.10287")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaled:
    """A schedule for another batch size or length, which nobody has trained with yet.

    Attributes:
        found: the facts of the task that it was found for.
        facts: the facts with the new batch size and length.
        params: its searched parameters, rescaled.
        manual: the hand-written rates, if it uses them, over the new number of epochs.
        schedule: the schedule.
        rule: how its rates follow the batch size; None if that stays.
        factor: what its rates were multiplied by.
        beyond: why a search of this length would not try it; empty if it would.
    """

    found: TaskFacts
    facts: TaskFacts
    params: Mapping[str, Value]
    manual: HandWritten | None
    schedule: Schedule
    rule: Rule | None
    factor: float
    beyond: str


def rule_of(optimizer: str) -> Rule:
    """The rule for an optimizer, described as in :class:`TaskFacts`: ``SGD(momentum=0.9)``."""
    return LINEAR if optimizer.partition("(")[0] in IN_PROPORTION else SQUARE_ROOT


def rescaled(
    space: StudySpace, facts: TaskFacts, family: str, params: Mapping[str, Value], new: TaskFacts
) -> Rescaled:
    """The schedule of a family's ``params``, found under ``facts``, for the ``new`` facts.

    All lengths keep their share of the run; see :func:`stretched`.

    Raises:
        PlanError: the schedule is impossible in a run of this length, or is a user's function of
            the step, which cannot be stretched to other epochs.
    """
    rule, factor = None, 1.0
    if new.batch_size != facts.batch_size:
        assert new.batch_size is not None and facts.batch_size is not None
        rule = rule_of(facts.optimizer)
        factor = (new.batch_size / facts.batch_size) ** rule.exponent
    changed = {
        name: float(value) * factor if name in RATES else value
        for name, value in stretched(params, facts, new).items()
    }
    manual = space.setting.manual
    if family == Manual.family:
        manual = stretched_rates(manual, facts, new)
    setting = replace(
        space.setting, epochs=new.epochs, steps_per_epoch=new.steps_per_epoch, manual=manual
    )
    try:
        schedule = replace(space, setting=setting).build(family, changed)
    except ScheduleError as error:
        raise PlanError(
            f"the {family} schedule is impossible in {new.horizon} steps: {error}"
        ) from error
    return Rescaled(
        found=facts,
        facts=new,
        params=changed,
        manual=setting.manual,
        schedule=schedule,
        rule=rule,
        factor=factor,
        beyond=_beyond(family, changed, setting),
    )


def stretched(params: Mapping[str, Value], facts: TaskFacts, new: TaskFacts) -> dict[str, Value]:
    """The parameters, found under ``facts``, of the same schedule in a run of another length.

    All but one are shares of the run: a stepsize in whole epochs, which is rounded to whole epochs.
    A length of its own is left out.
    """
    ratio = new.epochs / facts.epochs
    return {
        name: max(round(float(value) * ratio), 1) if name == STEPSIZE else value
        for name, value in params.items()
        if name != EPOCHS
    }


def stretched_rates(
    manual: HandWritten | None, facts: TaskFacts, new: TaskFacts
) -> HandWritten | None:
    """Hand-written rates for ``facts``, over another number of epochs.

    Raises:
        PlanError: they are a user's function.
    """
    ratio = new.epochs / facts.epochs
    if manual is None or ratio == 1:
        return manual
    if isinstance(manual, str):
        raise PlanError(
            f"epochs: {manual} is your own function of the step, for {facts.epochs} epochs: it "
            "cannot be stretched to others, so write another one and search its factor"
        )
    return tuple((_stretched(where, ratio), rate) for where, rate in manual)


def _stretched(where: float | tuple[float, float], ratio: float) -> float | tuple[float, float]:
    if isinstance(where, tuple):
        first, last = where
        return first * ratio, last * ratio
    return where * ratio


def _beyond(family: str, params: Mapping[str, Value], setting: Setting) -> str:
    try:
        space = FAMILIES[family].space(setting)
    except ScheduleError as error:
        return str(error)
    for name, value in params.items():
        domain = space[name].domain if name in space else None
        if isinstance(domain, Range) and domain.integer:
            low, high = domain.extremes
            if not domain.low <= float(value) <= domain.high:
                return f"{name} {value} is outside its usual range, {low} to {high}"
    return ""


def length_keys(plan: StudyPlan, facts: TaskFacts, new: TaskFacts) -> dict[str, int | None]:
    """The keys that give ``plan``, whose facts are ``facts``, the length of the ``new`` ones."""
    keys = {"batch_size": plan.batch_size, "epochs": plan.epochs}
    if new.batch_size != facts.batch_size:
        keys["batch_size"] = new.batch_size
    if facts.steps is not None:
        keys["steps"] = new.steps
    elif new.epochs != facts.epochs:
        keys["epochs"] = new.epochs
    if facts.validate_every is not None:
        keys["validate_every"] = new.validate_every
    return keys


def respaced(
    facts: TaskFacts, *, epochs: int | None = None, batch_size: int | None = None
) -> TaskFacts:
    """The facts of a task with another batch size, number of epochs or both.

    The run sees each sample as often as before in an epoch or, if its length is in steps, in all:
    the steps change with the batch size. Steps per epoch follow from the number of samples if that
    is known, or else from the ratio of the batch sizes.

    Raises:
        PlanError: the length is not in epochs or too long, the task has no batch size, or the new
            one exceeds the data.
        TaskError: there are more epochs than steps.
    """
    if epochs is not None and facts.steps is not None:
        raise PlanError(
            f"epochs: the length of this study is {facts.steps} steps, not a number of epochs"
        )
    if epochs in (None, facts.epochs) and batch_size in (None, facts.batch_size):
        return facts
    ratio = 1.0
    if batch_size is not None:
        if facts.batch_size is None:
            raise PlanError(
                "batch_size: a custom training loop makes its own batches, so it is not known "
                "for which size the rates were found"
            )
        ratio = facts.batch_size / batch_size
    every = facts.validate_every and max(round(facts.validate_every * ratio), 1)
    if facts.steps is not None:
        total = max(round(facts.steps * ratio), 1)
        length = Length(epochs=None, steps=total, validate_every=every)
    else:
        epochs = facts.epochs if epochs is None else epochs
        length = Length(epochs=epochs, validate_every=every)
        total = round(epochs * _steps_per_epoch(facts, batch_size, ratio))
    spacing = length.over(total)
    size = facts.batch_size if batch_size is None else batch_size
    new = facts.model_copy(update={**spacing.model_dump(), "batch_size": size})
    require_size(new)
    return new


def _steps_per_epoch(facts: TaskFacts, batch_size: int | None, ratio: float) -> float:
    if batch_size is None or facts.batch_size is None:
        return facts.steps_per_epoch
    samples = None if facts.splits is None else int(facts.splits[0][0])
    if samples is not None and batch_size > samples:
        raise PlanError(
            f"batch_size: {batch_size} exceeds the {samples} training samples of the task"
        )
    if samples is not None and samples // facts.batch_size == facts.steps_per_epoch:
        return samples // batch_size  # a last batch that is not full is dropped
    steps = facts.steps_per_epoch * ratio
    if facts.in_steps:  # its epochs differ in length anyway
        return steps
    if steps < 0.5:
        raise PlanError(f"batch_size: {batch_size} leaves no step in an epoch")
    return math.floor(steps + 0.5)
