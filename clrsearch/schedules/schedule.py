"""The interface of a schedule: closed form, torch scheduler, source code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from clrsearch.errors import ScheduleError
from clrsearch.schedules.parameters import Momentum, RateFunction, Setting, Space, Value
from clrsearch.schedules.pieces import Curves

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The rates and momenta of a schedule over a horizon of T steps, per parameter group.

    ``rates`` is a ``(groups, T)`` array; so is ``momenta``, or None if the schedule leaves the
    optimizer's own momentum unchanged. ``averaging`` is what :func:`averaging_of` returns.
    """

    rates: Array
    momenta: Array | None
    averaging: float | None = None

    def before(self, ends: Sequence[int]) -> Trace:
        """The rates and momenta at the step before each of these: (groups, ends) arrays."""
        last = np.asarray(ends) - 1
        return replace(
            self,
            rates=self.rates[:, last],
            momenta=None if self.momenta is None else self.momenta[:, last],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A schedule as Python source: import lines, definitions, and the body of ``make_scheduler``.

    The body may use ``optimizer``; ``stretch``, the ratio of the actual length to the one that
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
        averaging=averaging_of(schedule),
    )


def averaging_of(schedule: Schedule) -> float | None:
    """The beta of the Schedule-Free optimizer to play a schedule to; None for the task's own."""
    found: float | None = getattr(schedule, "averaging", None)
    return found


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
