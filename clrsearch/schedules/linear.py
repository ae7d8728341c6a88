"""Rates that decay to zero at the horizon, linearly or polynomially.

A. Defazio et al., "Optimal Linear Decay Learning Rate Schedules and Further Refinements",
arXiv:2310.07831; L.-C. Chen et al., "DeepLab", arXiv:1606.00915 (power 0.9); Y. You et al., "Large
Batch Training of Convolutional Networks", arXiv:1708.03888 (power 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clrsearch.errors import ScheduleError
from clrsearch.schedules.decay import WARMUP, Decay, at_peaks, peaks, warmup_of
from clrsearch.schedules.fields import require_horizon
from clrsearch.schedules.parameters import Parameter, Range, Setting, Space, Value, settings_near
from clrsearch.schedules.pieces import Piece

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LinearLR, PolynomialLR


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Decay):
    """share(t) = 1 - (t - warmup) / (horizon - warmup); torch's LinearLR to 0.

    ``horizon`` counts all optimizer steps, including the warm-up.
    """

    family: ClassVar[str] = "linear"

    horizon: int

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_horizon(self)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate and the warm-up, which are what Defazio et al. tune."""
        return {"lr": Parameter(domain=setting.rates), "warmup_share": WARMUP}

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """5 % of warm-up to the task's own rate, and to three times that."""
        return at_peaks(setting, space, warmup_share=0.05)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Linear:
        """The schedule for the searched parameters; see :meth:`space`."""
        return cls(
            lr=float(params["lr"]), warmup=warmup_of(params, setting), horizon=setting.horizon
        )

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """A straight line to zero."""
        return (Piece(begin=self.warmup, until=self.horizon, start=1.0, end=0.0),)

    def native(self, optimizer: Optimizer) -> LinearLR:
        """torch's LinearLR, from 1 to 0."""
        from torch.optim.lr_scheduler import LinearLR

        return LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=self.horizon)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]]:
        """A call of LinearLR."""
        return "LinearLR", {
            "start_factor": "1.0",
            "end_factor": "0.0",
            "total_iters": f"round({self.horizon!r} * stretch)",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial(Decay):
    """share(t) = (1 - (t - warmup) / (horizon - warmup))^power; torch's PolynomialLR.

    ``horizon`` counts all optimizer steps, including the warm-up.
    """

    family: ClassVar[str] = "polynomial"

    horizon: int
    power: float

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_horizon(self)
        if not (math.isfinite(self.power) and self.power > 0):
            raise ScheduleError(f"power must be positive, not {self.power}")

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the power and the warm-up.

        Powers of 0.9 and 2 are in use; 0.5 decays late, and 3 is down to an eighth at half time.
        """
        return {
            "lr": Parameter(domain=setting.rates),
            "power": Parameter(domain=Range(low=0.5, high=3.0, log=True)),
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """DeepLab's power from the task's own rate, and LARS's from three times that.

        The latter has 5 % of warm-up.
        """
        own, higher = peaks(setting)
        return settings_near(
            space,
            {"lr": own, "power": 0.9, "warmup_share": 0.0},
            {"lr": higher, "power": 2.0, "warmup_share": 0.05},
        )

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Polynomial:
        """The schedule for the searched parameters; see :meth:`space`."""
        return cls(
            lr=float(params["lr"]),
            warmup=warmup_of(params, setting),
            horizon=setting.horizon,
            power=float(params["power"]),
        )

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """A single polynomial piece."""
        ends = {"start": 1.0, "end": 0.0, "power": self.power}
        return (Piece(begin=self.warmup, until=self.horizon, shape="polynomial", **ends),)

    def native(self, optimizer: Optimizer) -> PolynomialLR:
        """torch's PolynomialLR."""
        from torch.optim.lr_scheduler import PolynomialLR

        return PolynomialLR(optimizer, total_iters=self.horizon, power=self.power)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]]:
        """A call of PolynomialLR."""
        iters = f"round({self.horizon!r} * stretch)"
        return "PolynomialLR", {"total_iters": iters, "power": repr(self.power)}
