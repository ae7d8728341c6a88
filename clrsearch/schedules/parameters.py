"""What is searched of a schedule: the parameters of a family, for the task it is searched for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Value = float | int | str | bool
"""A parameter's value, as the sampler proposes it and the database stores it."""
Momentum = Literal["none", "momentum", "betas"]
"""What an optimizer can cycle: nothing, its ``momentum``, or the first of its ``betas``."""
HandWritten = str | tuple[tuple[float | tuple[float, float], float], ...]
"""Hand-written rates: pairs of epochs (a number, or the first and the last) and a rate, or the name
of a function, ``package.module:NAME`` or ``file.py:NAME``."""
RateFunction = Callable[[int, float], float]
"""``rate(step, steps_per_epoch)``, for optimizer steps from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A number searched from ``low`` to ``high``, both inclusive; one value if they are equal."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The end points, as the sampler would propose them."""
        ends = (self.low, self.high)
        return tuple(int(end) for end in ends) if self.integer else ends

    def clip(self, value: float) -> float:
        """The value in the range that is nearest to ``value``."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several unordered values."""

    options: tuple[str | bool, ...]

    @property
    def extremes(self) -> tuple[Value, ...]:
        """All options."""
        return self.options


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A searched parameter of a family.

    If ``when`` is set, this parameter is searched only if another one, named first and earlier in
    the :data:`Space`, has one of the values that follow.
    """

    domain: Range | Choice
    when: tuple[str, *tuple[Value, ...]] | None = None

    def applies(self, params: Mapping[str, Value]) -> bool:
        """Whether this parameter is searched, given the ``params`` chosen before it."""
        return self.when is None or params.get(self.when[0]) in self.when[1:]


Space = Mapping[str, Parameter]
"""A family's searched parameters by name, in the order in which they are chosen."""


def settings_near(space: Space, *wanted: Mapping[str, Value]) -> list[Mapping[str, Value]]:
    """The points of a space nearest to each of the ``wanted`` ones, without duplicates.

    A choice that the space does not have is replaced by the first one it has.
    """
    settings: list[Mapping[str, Value]] = []
    for values in wanted:
        params: dict[str, Value] = {}
        for name, parameter in space.items():
            if parameter.applies(params):
                params[name] = _nearest(parameter.domain, values[name])
        if params not in settings:
            settings.append(params)
    return settings


def _nearest(domain: Range | Choice, wanted: Value) -> Value:
    if isinstance(domain, Choice):
        return wanted if wanted in domain.options else domain.options[0]
    assert not isinstance(wanted, str)
    return int(domain.clip(wanted)) if domain.integer else domain.clip(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a family needs to know about a task to be searched for it.

    Attributes:
        unit: what ``epochs`` counts, to a reader: validations in a run whose length is in steps.
        base_lr: the learning rate of the first parameter group in the task's own optimizer.
        tested: the rates found by a range test.
        manual: the hand-written rates of the plan.
        rate_function: the function that ``manual`` names, if it has been loaded.
        bounded: the family's parameters that the plan gives bounds. Some are searched only then.
    """

    epochs: int
    steps_per_epoch: float
    base_lr: float
    momentum: Momentum
    unit: Literal["epoch", "validation"] = "epoch"
    stepsize: Literal["whole-cycles", "integers"] = "whole-cycles"
    tested: Range | None = None
    manual: HandWritten | None = None
    rate_function: RateFunction | None = None
    bounded: frozenset[str] = frozenset()

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in a full run."""
        return round(self.epochs * self.steps_per_epoch)

    @property
    def rates(self) -> Range:
        """The range of learning rates to search: that of a range test, if there was one.

        Otherwise a factor of 30 to either side of the task's own rate.
        """
        if self.tested is not None:
            return self.tested
        return Range(low=self.base_lr / 30, high=self.base_lr * 30, log=True)


def momentum_parameters(setting: Setting) -> dict[str, Parameter]:
    """Whether to cycle the momentum and between which bounds; empty without a momentum.

    Smith (arXiv:1803.09820) goes down from 0.95 to 0.85 or 0.8; the ranges around these do not
    overlap.
    """
    if setting.momentum == "none":
        return {}
    cycling = ("cycle_momentum", True)
    return {
        "cycle_momentum": Parameter(domain=Choice(options=(False, True))),
        "base_momentum": Parameter(domain=Range(low=0.75, high=0.9), when=cycling),
        "max_momentum": Parameter(domain=Range(low=0.9, high=0.98), when=cycling),
    }


def cycled_momentum(params: Mapping[str, Value]) -> dict[str, Any]:
    """The fields that :func:`momentum_parameters` search: whether to cycle, and the bounds."""
    if not params.get("cycle_momentum", False):
        return {}
    bounds = {name: float(params[name]) for name in ("base_momentum", "max_momentum")}
    return {"cycle_momentum": True, **bounds}
