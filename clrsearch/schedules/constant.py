"""A constant learning rate: the baseline that every schedule has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clrsearch.schedules.code import assignment, call
from clrsearch.schedules.fields import require_rate
from clrsearch.schedules.parameters import Parameter, Setting, Space, Value, settings_near
from clrsearch.schedules.pieces import Curves, Piece
from clrsearch.schedules.schedule import Array, Snippet, set_rates

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
        """The rate alone, by default within a factor of 30 of the task's own."""
        return {"lr": Parameter(domain=setting.rates)}

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """The task's own rate, as it trains with today."""
        return settings_near(space, {"lr": setting.base_lr})

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Constant:
        """The schedule for the searched rate."""
        return cls(lr=float(params["lr"]))

    def at(self, steps: Array) -> tuple[Array, None]:
        """The rate at each of ``steps``."""
        return np.full_like(steps, self.lr), None

    def scheduler(self, optimizer: Optimizer) -> ConstantLR:
        """torch's ConstantLR, after setting the optimizer's rates."""
        from torch.optim.lr_scheduler import ConstantLR

        set_rates(optimizer, self.lr)
        return ConstantLR(optimizer, factor=1.0, total_iters=0)

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`."""
        return Snippet(
            imports=("from torch.optim.lr_scheduler import ConstantLR",),
            body=(
                *assignment(self.lr, groups),
                *call("ConstantLR", {"factor": "1.0", "total_iters": "0"}),
            ),
        )

    def curves(self, horizon: int) -> Curves:
        """A single constant piece."""
        return Curves(rate=(Piece(begin=0, until=horizon, start=self.lr, end=self.lr),))
