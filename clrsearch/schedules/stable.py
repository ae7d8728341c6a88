"""Warm up, hold, decay at the end: the schedule for models whose training may be extended.

S. Hu et al., "MiniCPM", arXiv:2404.06395; A. Hägele et al., "Scaling Laws and Compute-Optimal
Training Beyond Fixed Training Durations", arXiv:2405.18392. A fall with an exponent is in use in
K. Jordan et al., "modded-nanogpt", https://github.com/KellerJordan/modded-nanogpt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from clrsearch.errors import ScheduleError
from clrsearch.schedules.decay import FLOOR, WARMUP, Decay, at_peaks, warmup_of
from clrsearch.schedules.fields import (
    require_horizon,
    require_one_of,
    require_order,
    require_rate,
    require_steps,
)
from clrsearch.schedules.parameters import (
    Choice,
    Parameter,
    Range,
    Setting,
    Space,
    Value,
)
from clrsearch.schedules.pieces import Piece

Shape = Literal["linear", "1-sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupStableDecay(Decay):
    """share(t) = 1 while t <= horizon - decay, else f + (1 - f) fall(p); a LambdaLR.

    Here f = min_lr / lr is the floor, p = (t - (horizon - decay)) / decay, and fall(p) = 1 - p
    (``linear``) or 1 - sqrt(p) (``1-sqrt``). With a ``power`` it is (1 - p)^power, which is linear
    for 1. ``horizon`` counts all optimizer steps; the rate decays over the last ``decay`` of them.
    """

    family: ClassVar[str] = "wsd"

    horizon: int
    decay: float
    shape: Shape = "linear"
    min_lr: float = 0.0
    power: float | None = None

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_horizon(self)
        require_steps("decay", self.decay)
        if self.warmup + self.decay > self.horizon:
            raise ScheduleError(
                f"decay {self.decay} does not fit after the warm-up {self.warmup}: "
                f"the horizon is {self.horizon}"
            )
        require_one_of(self, "shape", get_args(Shape))
        require_rate("min_lr", self.min_lr, zero=True)
        require_order(self, "min_lr", "lr")
        if self.power is not None:
            if not (math.isfinite(self.power) and self.power > 0):
                raise ScheduleError(f"power must be positive, not {self.power}")
            if self.shape != "linear":
                raise ScheduleError(f"power needs the shape linear, not {self.shape}")

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the decay as a share of the horizon, its shape and floor, and the warm-up.

        Hu et al. decay over a tenth of the horizon, and Hägele et al. find little to gain beyond
        0.2; 0.1 to 0.5 is searched, because short runs may need more. If the plan's bounds name the
        ``power``, it is searched in place of the shape.
        """
        fall = {"shape": Parameter(domain=Choice(options=get_args(Shape)))}
        if "power" in setting.bounded:
            fall = {"power": Parameter(domain=Range(low=0.3, high=3.0, log=True))}
        return {
            "lr": Parameter(domain=setting.rates),
            "decay_share": Parameter(domain=Range(low=0.1, high=0.5)),
            **fall,
            "min_ratio": FLOOR,
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """5 % of warm-up and 20 % of 1-sqrt decay to zero (Hägele et al.), for both peak rates.

        Of linear decay, if the power is searched.
        """
        fall: dict[str, Value] = {"shape": "1-sqrt", "power": 1.0}
        return at_peaks(setting, space, decay_share=0.2, **fall, min_ratio=0.0, warmup_share=0.05)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> WarmupStableDecay:
        """The schedule for the searched parameters; see :meth:`space`."""
        lr = float(params["lr"])
        return cls(
            lr=lr,
            warmup=warmup_of(params, setting),
            horizon=setting.horizon,
            decay=max(round(float(params["decay_share"]) * setting.horizon), 1),
            shape=params.get("shape", "linear"),  # type: ignore[arg-type]  # checked in __post_init__
            min_lr=lr * float(params["min_ratio"]),
            power=float(params["power"]) if "power" in params else None,
        )

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """The peak rate, held, and the decay to the floor."""
        begin, floor = self.horizon - self.decay, self.min_lr / self.lr
        held = Piece(begin=self.warmup, until=begin, start=1.0, end=1.0)
        last = Piece(begin=begin, until=self.horizon, start=1.0, end=floor, shape=self.shape)
        if self.power is not None:
            last = replace(last, shape="polynomial", power=self.power)
        return (held, last) if begin > self.warmup else (last,)
