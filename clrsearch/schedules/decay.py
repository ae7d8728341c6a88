"""A peak rate, a linear warm-up in front of it and a decay behind it: what such families share.

P. Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677, for the linear warm-up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clrsearch.schedules.code import assignment, call
from clrsearch.schedules.fields import require_rate, require_steps
from clrsearch.schedules.pieces import Curves, Piece
from clrsearch.schedules.schedule import (
    Array,
    Parameter,
    Range,
    Setting,
    Snippet,
    Value,
    set_rates,
)
from clrsearch.schedules.shapes import warm_up

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

WARMUP = Parameter(domain=Range(low=0.0, high=0.2))
"""The warm-up as a share of the horizon: Goyal et al. take 1/18 of it, language models under 1/10;
twice that is the most."""
FLOOR = Parameter(domain=Range(low=0.0, high=0.2))
"""The rate at the horizon as a share of the peak rate: 0 in most papers, a tenth in those on
language models (Hoffmann et al., arXiv:2203.15556); twice that is the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay(ABC):
    """Up to the peak ``lr`` in a straight line, and then down by a family's own curve::

        rate(t) = lr (t + 1) / (warmup + 1)   while t < warmup, else lr share(t)

    ``warmup`` is in optimizer steps and need not be whole; 0 is none. The first step is positive,
    and the peak is reached after ``warmup`` steps. torch's own class is used where there is no
    warm-up, for chained schedulers are off by a step (pytorch#196243); else a LambdaLR of this.

    Raises:
        ScheduleError: a value that no schedule may have, by the field's name.
    """

    lr: float
    warmup: float = 0

    def __post_init__(self) -> None:
        require_rate("lr", self.lr)
        require_steps("warmup", self.warmup, zero=True)

    @abstractmethod
    def share(self, steps: Array) -> Array:
        """The share of the peak rate at each of ``steps``, none of which is before ``warmup``."""

    @abstractmethod
    def share_source(self) -> tuple[str, ...]:
        """The source of :meth:`share` for a number ``step``: lines that end in a return."""

    @abstractmethod
    def fall(self, horizon: int) -> tuple[Piece, ...]:
        """The rates from ``warmup`` on, as plain data for steps before ``horizon``."""

    def native(self, optimizer: Optimizer) -> LRScheduler | None:
        """torch's own class for :meth:`share` without a warm-up, if it can say it.

        The rates of the optimizer's groups are at their peak.
        """
        return None

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]] | None:
        """The name and the arguments of :meth:`native` as source, if it can be stretched."""
        return None

    def at(self, steps: Array) -> tuple[Array, None]:
        """The rate at each of ``steps``."""
        return self.lr * self._factor(steps), None

    def _factor(self, steps: Array) -> Array:
        share = self.share(np.maximum(steps, self.warmup))
        return np.where(steps < self.warmup, warm_up(steps, self.warmup), share)

    def scheduler(self, optimizer: Optimizer) -> LRScheduler:
        """torch's own class, or a LambdaLR, with the optimizer's rates set to the peak first."""
        from torch.optim.lr_scheduler import LambdaLR

        set_rates(optimizer, self.lr)
        native = None if self.warmup else self.native(optimizer)
        if native is not None:
            return native
        return LambdaLR(optimizer, lambda step: float(self._factor(np.array([step], float))[0]))

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`; without torch's own class, one of the closed form."""
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
        """The warm-up, and what a family's own curve is made of."""
        if not self.warmup:
            return Curves(rate=self.fall(horizon))
        low = self.lr / (self.warmup + 1)
        rise = Piece(begin=0, until=self.warmup, start=low, end=self.lr)
        return Curves(rate=(rise, *self.fall(horizon)))

    def _factor_source(self) -> tuple[str, ...]:
        rise: tuple[str, ...] = ()
        if self.warmup:
            rise = (
                f"if step < {self.warmup!r}:",
                f"    return (step + 1) / {self.warmup + 1!r}",
            )
        return (
            "def factor(step):",
            '    """The share of the peak rate after so many steps of the search."""',
            *(f"    {line}" for line in (*rise, *self.share_source())),
        )


def peaks(setting: Setting) -> tuple[float, float]:
    """The peak rates to try first: the task's own, and three times that.

    A rate that falls later bears a higher peak than one that stays, which the task's own is for.
    """
    return setting.own_rate, 3 * setting.own_rate


def warmup_of(params: Mapping[str, Value], setting: Setting) -> int:
    """The searched ``warmup_share`` of the horizon in whole steps."""
    return round(float(params["warmup_share"]) * setting.horizon)


def since(step: float) -> str:
    """The source of the steps that have passed since a ``step``."""
    return f"(step - {step!r})" if step else "step"


def progress_source(first: float, last: float) -> str:
    """The source of ``shapes.progress`` for a ``step`` that is not before the ``first``."""
    return f"progress = min({since(first)} / {last - first!r}, 1.0)"


def return_source(curve: str, floor: float, lr: float) -> tuple[str, ...]:
    """The source of a return of a ``curve`` from 1 to 0, lifted to end at a ``floor``, a rate."""
    if not floor:
        return (f"return {curve}",)
    return (f"floor = {floor!r} / {lr!r}", f"return floor + (1.0 - floor) * ({curve})")
