"""Cosine annealing from the peak to a floor: once, or repeatedly with warm restarts.

I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
arXiv:1608.03983.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clrsearch.errors import ScheduleError
from clrsearch.schedules.decay import FLOOR, WARMUP, Decay, at_peaks, warmup_of
from clrsearch.schedules.fields import require_count, require_horizon, require_order, require_rate
from clrsearch.schedules.parameters import Parameter, Range, Setting, Space, Value
from clrsearch.schedules.pieces import Piece

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

MOST_CYCLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine(Decay):
    """share(t) = f + (1 - f) (1 + cos(pi p)) / 2; torch's CosineAnnealingLR.

    Here f = eta_min / lr is the floor and p = (t - warmup) / (horizon - warmup). ``horizon`` counts
    all optimizer steps. torch has one ``eta_min`` for all parameter groups, which would not
    preserve their ratios, so a LambdaLR is used with several groups and a floor.
    """

    family: ClassVar[str] = "cosine"

    horizon: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_horizon(self)
        require_rate("eta_min", self.eta_min, zero=True)
        require_order(self, "eta_min", "lr")

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the floor relative to it, and the warm-up."""
        return {
            "lr": Parameter(domain=setting.rates),
            "min_ratio": FLOOR,
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Decay to zero after 5 % of warm-up, from the task's own rate and three times that."""
        return at_peaks(setting, space, min_ratio=0.0, warmup_share=0.05)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Cosine:
        """The schedule for the searched parameters; see :meth:`space`."""
        lr = float(params["lr"])
        return cls(
            lr=lr,
            warmup=warmup_of(params, setting),
            horizon=setting.horizon,
            eta_min=lr * float(params["min_ratio"]),
        )

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """Half a cosine."""
        return _halves((self.warmup, self.horizon), self.eta_min / self.lr)

    def native(self, optimizer: Optimizer) -> CosineAnnealingLR | None:
        """torch's CosineAnnealingLR."""
        from torch.optim.lr_scheduler import CosineAnnealingLR

        if self.eta_min and len(optimizer.param_groups) > 1:
            return None
        return CosineAnnealingLR(optimizer, T_max=self.horizon, eta_min=self.eta_min)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]] | None:
        """A call of CosineAnnealingLR."""
        if self.eta_min and groups > 1:
            return None
        horizon = f"round({self.horizon!r} * stretch)"
        return "CosineAnnealingLR", {"T_max": horizon, "eta_min": repr(self.eta_min)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineRestarts(Decay):
    """share(t) = f + (1 - f) (1 + cos(pi p)) / 2, with p the progress of t within its cycle.

    Here f = eta_min / lr is the floor. ``cycles`` cycles, each ``T_mult`` times as long as the one
    before, fill the horizon exactly, so the first one lasts, in possibly fractional optimizer
    steps,

        T_0 = (horizon - warmup) (T_mult - 1) / (T_mult^cycles - 1)   or (horizon - warmup) / cycles

    torch's CosineAnnealingWarmRestarts is equivalent if T_0 is whole, but cannot be stretched to
    other steps per epoch, so the source code uses a LambdaLR.
    """

    family: ClassVar[str] = "cosine_restarts"

    horizon: int
    cycles: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_horizon(self)
        require_count("cycles", self.cycles)
        require_count("T_mult", self.T_mult)
        require_rate("eta_min", self.eta_min, zero=True)
        require_order(self, "eta_min", "lr")

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, cycles of equal or doubling length, the floor, and the warm-up.

        The shortest cycle that Loshchilov and Hutter try is one epoch, doubling (``T_mult`` 2). The
        upper bound on the cycles, between 2 and 5, is the number that fits the horizon in this way.
        """
        most = min(MOST_CYCLES, (setting.epochs + 1).bit_length() - 1)
        if most < 2:
            raise ScheduleError(
                "two cycles, the second twice as long as the first, need at least 3 "
                f"{setting.unit}s; there are {setting.epochs}"
            )
        return {
            "lr": Parameter(domain=setting.rates),
            "cycles": Parameter(domain=Range(low=2, high=most, integer=True)),
            "T_mult": Parameter(domain=Range(low=1, high=2, integer=True)),
            "min_ratio": FLOOR,
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Three doubling cycles, from the task's own rate and from three times that."""
        return at_peaks(setting, space, cycles=3, T_mult=2, min_ratio=0.0, warmup_share=0.0)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> CosineRestarts:
        """The schedule for the searched parameters; see :meth:`space`."""
        lr = float(params["lr"])
        return cls(
            lr=lr,
            warmup=warmup_of(params, setting),
            horizon=setting.horizon,
            cycles=int(params["cycles"]),
            T_mult=int(params["T_mult"]),
            eta_min=lr * float(params["min_ratio"]),
        )

    @property
    def _passed(self) -> tuple[int, ...]:
        """The time before each cycle and at the end, in lengths of the first cycle."""
        return (0, *itertools.accumulate(self.T_mult**index for index in range(self.cycles)))

    @property
    def restarts(self) -> tuple[float, ...]:
        """The steps at which the cycles begin, followed by the step at which the last one ends."""
        *begins, whole = self._passed
        length = self.horizon - self.warmup
        return (*(self.warmup + length * passed / whole for passed in begins), self.horizon)

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """Half a cosine from 1 to the floor per cycle."""
        return _halves(self.restarts, self.eta_min / self.lr)

    def native(self, optimizer: Optimizer) -> CosineAnnealingWarmRestarts | None:
        """torch's CosineAnnealingWarmRestarts."""
        from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

        first, rest = divmod(self.horizon, self._passed[-1])
        if rest or (self.eta_min and len(optimizer.param_groups) > 1):
            return None
        return CosineAnnealingWarmRestarts(
            optimizer, T_0=first, T_mult=self.T_mult, eta_min=self.eta_min
        )


def _halves(steps: Sequence[float], floor: float) -> tuple[Piece, ...]:
    """Half cosines from 1 to the floor, between consecutive ``steps``."""
    return tuple(
        Piece(begin=begin, until=until, start=1.0, end=floor, shape="cosine")
        for begin, until in itertools.pairwise(steps)
    )
