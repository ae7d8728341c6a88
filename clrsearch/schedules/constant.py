"""A learning rate that never changes: the baseline that every schedule has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clrsearch.schedules.schedule import (
    Array,
    Parameter,
    Range,
    Setting,
    Snippet,
    Space,
    Value,
    relative_rates,
    require_rate,
)

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import ConstantLR


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """rate(t) = lr."""

    family: ClassVar[str] = "constant"

    lr: float

    def __post_init__(self) -> None:
        require_rate("lr", self.lr)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The rate alone, a factor of 30 to either side of the task's own."""
        own = setting.own_rate
        return {"lr": Parameter(domain=Range(low=own / 30, high=own * 30, log=True))}

    @classmethod
    def first(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """The task's own rate: what it trains with today."""
        lr = space["lr"].domain
        assert isinstance(lr, Range)
        return [{"lr": lr.clip(setting.own_rate)}]

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Constant:
        """The schedule of the searched rate."""
        return cls(lr=float(params["lr"]))

    def at(self, steps: Array) -> tuple[Array, None]:
        """The rate at each of ``steps``."""
        return np.full_like(steps, self.lr), None

    def scheduler(self, optimizer: Optimizer) -> ConstantLR:
        """torch's ConstantLR, with the optimizer's rates set first."""
        from torch.optim.lr_scheduler import ConstantLR

        ratios = relative_rates(optimizer)
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = self.lr * ratio
        return ConstantLR(optimizer, factor=1.0, total_iters=0)

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`."""
        assign: tuple[str, ...]
        if groups == 1:
            assign = (f'optimizer.param_groups[0]["lr"] = {self.lr!r}',)
        else:
            assign = (
                "for group, ratio in zip(optimizer.param_groups, ratios):",
                f'    group["lr"] = {self.lr!r} * ratio',
            )
        return Snippet(
            imports=("from torch.optim.lr_scheduler import ConstantLR",),
            body=(*assign, "return ConstantLR(optimizer, factor=1.0, total_iters=0)"),
        )
