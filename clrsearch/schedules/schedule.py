"""The interface of a schedule: search space, closed form, torch scheduler and source code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from clrsearch.errors import ScheduleError
from clrsearch.schedules.pieces import Curves

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Array = NDArray[np.float64]
Value = float | int | str | bool
"""A parameter's value, as the sampler proposes it and the database stores it."""
Momentum = Literal["none", "momentum", "betas"]
"""What an optimizer can cycle: nothing, its ``momentum``, or the first of its ``betas``."""
HandWritten = str | tuple[tuple[float | tuple[float, float], float], ...]
"""Hand-written rates: pairs of epochs (a number, or the first and the last) and a rate, or the name
of a function, ``package.module:NAME`` or ``file.py:NAME``."""
RateFunction = Callable[[int, int], float]
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
        base_lr: the learning rate of the first parameter group in the task's own optimizer.
        tested: the rates found by a range test.
        manual: the hand-written rates of the plan.
        rate_function: the function that ``manual`` names, if it has been loaded.
    """

    epochs: int
    steps_per_epoch: int
    base_lr: float
    momentum: Momentum
    stepsize: Literal["whole-cycles", "integers"] = "whole-cycles"
    tested: Range | None = None
    manual: HandWritten | None = None
    rate_function: RateFunction | None = None

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in a full run."""
        return self.epochs * self.steps_per_epoch

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The rates and momenta of a schedule over a horizon of T steps, per parameter group.

    ``rates`` is a ``(groups, T)`` array; so is ``momenta``, or None if the schedule leaves the
    optimizer's own momentum unchanged.
    """

    rates: Array
    momenta: Array | None

    def at_epoch_ends(self, steps_per_epoch: int) -> Trace:
        """The rates and momenta at the last step of each epoch: (groups, epochs) arrays."""
        last = slice(steps_per_epoch - 1, None, steps_per_epoch)
        return Trace(
            rates=self.rates[:, last],
            momenta=None if self.momenta is None else self.momenta[:, last],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A schedule as Python source: import lines, definitions, and the body of ``make_scheduler``.

    The body may use ``optimizer``; ``stretch``, the ratio of the actual steps per epoch to those
    the schedule was found with; and, if it was requested for several groups, ``ratios``, the
    groups' learning rates relative to the first. It returns the scheduler. ``own`` is what it
    imports from the user's code: the module, the name in it, and the function if it is loaded.
    """

    imports: tuple[str, ...]
    body: tuple[str, ...]
    definitions: tuple[str, ...] = ()
    own: tuple[str, str, RateFunction | None] | None = None


class Schedule(Protocol):
    """A family with concrete values: a frozen dataclass that has them as its fields.

    Steps are optimizer steps counted from 0; rates are those of the first parameter group.
    """

    family: ClassVar[str]

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The family's search space, before the plan's bounds are applied.

        Raises:
            ScheduleError: the family does not fit the number of epochs.
        """

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Settings to try before any are sampled, within the bounds of ``space``."""

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Self:
        """The schedule for the searched ``params``.

        Raises:
            ScheduleError: the values contradict each other.
        """

    def at(self, steps: Array) -> tuple[Array, Array | None]:
        """The rate, and the momentum if the schedule sets one, at each of ``steps``."""

    def scheduler(self, optimizer: Optimizer) -> LRScheduler:
        """The schedule as a torch scheduler, to be stepped after every optimizer step.

        The ratios between the learning rates of the optimizer's groups are preserved.

        Raises:
            ScheduleError: the optimizer cannot follow the schedule, or has already followed
                another.
        """

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler` for an optimizer with ``groups`` parameter groups."""

    def curves(self, horizon: int) -> Curves | None:
        """:meth:`at` as plain data, for steps before ``horizon``; None if there is no formula."""


def trace(schedule: Schedule, horizon: int, ratios: Sequence[float] = (1.0,)) -> Trace:
    """The ``schedule`` over steps 0 .. ``horizon`` - 1, with each group's rates times its ratio."""
    rates, momenta = schedule.at(np.arange(horizon, dtype=np.float64))
    return Trace(
        rates=np.outer(np.asarray(ratios, dtype=np.float64), rates),
        momenta=None if momenta is None else np.tile(momenta, (len(ratios), 1)),
    )


def relative_rates(optimizer: Optimizer) -> list[float]:
    """The learning rates of a fresh optimizer's parameter groups relative to the first group's.

    Raises:
        ScheduleError: another scheduler has already set rates (it leaves ``initial_lr`` behind,
            which torch would start from), or the first group's rate is not positive.
    """
    groups = optimizer.param_groups
    if any("initial_lr" in group for group in groups):
        raise ScheduleError(
            "the optimizer has already been used with a scheduler: create a new one"
        )
    own = float(groups[0]["lr"])
    if not own > 0:
        raise ScheduleError(f"the optimizer's first learning rate must be positive, not {own}")
    return [float(group["lr"]) / own for group in groups]


def set_rates(optimizer: Optimizer, lr: float) -> None:
    """Set the first group's rate of a fresh optimizer to ``lr``, and scale the others to match.

    Raises:
        ScheduleError: as :func:`relative_rates`.
    """
    for group, ratio in zip(optimizer.param_groups, relative_rates(optimizer), strict=True):
        group["lr"] = lr * ratio


def momentum_of(optimizer: Optimizer) -> Momentum:
    """What an optimizer can cycle; a momentum of 0 counts as none, as cycling would turn it on."""
    group = optimizer.param_groups[0]
    if "betas" in group:
        return "betas"
    return "momentum" if group.get("momentum", 0) > 0 else "none"


def require_momentum(optimizer: Optimizer) -> None:
    """Reject an optimizer without a momentum to cycle.

    Raises:
        ScheduleError: it has no momentum, or a momentum of 0.
    """
    if momentum_of(optimizer) == "none":
        raise ScheduleError(
            f"cycle_momentum needs momentum, but this {type(optimizer).__name__} has none"
        )
