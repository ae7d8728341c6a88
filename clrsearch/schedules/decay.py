"""A peak rate, preceded by a linear warm-up and followed by a decay: the base of such families.

The linear warm-up is from P. Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clrsearch.schedules.code import assignment, call
from clrsearch.schedules.expressions import branch, source
from clrsearch.schedules.fields import require_rate, require_steps
from clrsearch.schedules.parameters import Parameter, Range, Setting, Space, Value, settings_near
from clrsearch.schedules.pieces import Curves, Piece, Shares, pieces_before
from clrsearch.schedules.schedule import Array, Snippet, set_rates
from clrsearch.schedules.shapes import values

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

WARMUP = Parameter(domain=Range(low=0.0, high=0.2))
"""The warm-up as a share of the horizon: Goyal et al. use 1/18, language models less than 1/10; the
upper bound is twice that."""
FLOOR = Parameter(domain=Range(low=0.0, high=0.2))
"""The rate at the horizon as a share of the peak rate: 0 in most papers, a tenth in those on
language models (Hoffmann et al., arXiv:2203.15556); the upper bound is twice that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay(ABC):
    """A linear warm-up to the peak ``lr``, followed by the family's own decay curve::

        rate(t) = lr (t + 1) / (warmup + 1)   while t < warmup, else lr share(t)

    A family states share(t) once, as data (:attr:`decay_curve`): values and code derive from it.
    ``warmup`` is in optimizer steps and may be fractional; 0 means none. The rate is positive from
    the first step, and reaches the peak after ``warmup`` steps. Without a warm-up torch's own class
    is used; with one, a LambdaLR of this formula, because chained schedulers are off by a step
    (pytorch#196243).

    Raises:
        ScheduleError: a value is invalid; names the field.
    """

    lr: float
    warmup: float = 0

    def __post_init__(self) -> None:
        require_rate("lr", self.lr)
        require_steps("warmup", self.warmup, zero=True)

    @property
    @abstractmethod
    def decay_curve(self) -> Shares:
        """The share of the peak rate from ``warmup`` on; all else derives from it."""

    def native(self, optimizer: Optimizer) -> LRScheduler | None:
        """torch's own class for the curve without a warm-up, or None if it has no equivalent.

        The rates of the optimizer's groups have been set to their peaks.
        """
        return None

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]] | None:
        """The name and arguments of :meth:`native` as source, or None if it cannot be stretched."""
        return None

    def at(self, steps: Array) -> tuple[Array, None]:
        """The rate at each of ``steps``."""
        return self.lr * self._factor(steps), None

    def _factor(self, steps: Array) -> Array:
        fall = values(self.decay_curve, np.maximum(steps, self.warmup))
        return np.where(steps < self.warmup, values((self._rise,), steps), fall)

    @property
    def _rise(self) -> Piece:
        """The warm-up, which would have been at 0 a step before the first."""
        return Piece(begin=-1, until=self.warmup, start=0.0, end=1.0)

    def scheduler(self, optimizer: Optimizer) -> LRScheduler:
        """torch's own class, or a LambdaLR, after setting the optimizer's rates to the peak."""
        from torch.optim.lr_scheduler import LambdaLR

        set_rates(optimizer, self.lr)
        native = None if self.warmup else self.native(optimizer)
        if native is not None:
            return native
        return LambdaLR(optimizer, lambda step: float(self._factor(np.array([step], float))[0]))

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`; that of the closed form if torch has no class for it."""
        native = None if self.warmup else self.native_source(groups)
        if native is not None:
            name, arguments = native
            definitions: tuple[str, ...] = ()
            made = call(name, arguments)
        else:
            name, definitions = "LambdaLR", self._factor_source()
            made = ("return LambdaLR(optimizer, lambda step: factor(step / stretch))",)
        uses_math = any("math." in line for line in (*definitions, *made))
        return Snippet(
            imports=(
                *(("import math", "") if uses_math else ()),
                f"from torch.optim.lr_scheduler import {name}",
            ),
            definitions=definitions,
            body=(*assignment(self.lr, groups), *made),
        )

    def curves(self, horizon: int) -> Curves:
        """The warm-up, and the pieces of the family's own curve."""
        pieces = pieces_before(horizon, self.decay_curve)
        if self.warmup:
            pieces = (replace(self._rise, begin=0, start=1 / (self.warmup + 1)), *pieces)
        return Curves(
            rate=tuple(
                replace(piece, start=self.lr * piece.start, end=self.lr * piece.end)
                for piece in pieces
            )
        )

    def _factor_source(self) -> tuple[str, ...]:
        rise = branch(self._rise) if self.warmup else ()
        return (
            "def factor(step):",
            '    """The share of the peak rate after so many steps of the search."""',
            *(f"    {line}" for line in (*rise, *source(self.decay_curve))),
        )


def peaks(setting: Setting) -> tuple[float, float]:
    """The peak rates to try first: the task's own, and three times that.

    A decaying rate tolerates a higher peak than a constant one, which the task's own is meant to
    be.
    """
    return setting.base_lr, 3 * setting.base_lr


def at_peaks(setting: Setting, space: Space, **wanted: Value) -> Sequence[Mapping[str, Value]]:
    """The points of a space nearest to the ``wanted`` values, at both :func:`peaks`."""
    return settings_near(space, *({"lr": lr, **wanted} for lr in peaks(setting)))


def warmup_of(params: Mapping[str, Value], setting: Setting) -> int:
    """The searched ``warmup_share`` of the horizon, in whole steps."""
    return round(float(params["warmup_share"]) * setting.horizon)
