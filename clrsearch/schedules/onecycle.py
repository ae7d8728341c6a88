"""One cycle: up from a small rate to a large one, then down to a much smaller one.

L. N. Smith, "A disciplined approach to neural network hyper-parameters", arXiv:1803.09820; L. N.
Smith and N. Topin, "Super-Convergence", arXiv:1708.07120. In the form that fastai made popular: two
phases, with the second ending far below where the first began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from clrsearch.errors import ScheduleError
from clrsearch.schedules.code import call, per_group
from clrsearch.schedules.fields import (
    require_momenta,
    require_one_of,
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
    cycled_momentum,
    momentum_parameters,
    settings_near,
)
from clrsearch.schedules.pieces import Curve, Curves, Piece, Shape
from clrsearch.schedules.schedule import Array, Snippet, relative_rates, require_momentum
from clrsearch.schedules.shapes import values

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import OneCycleLR

Strategy = Literal["cos", "linear"]

SHAPES: Mapping[Strategy, Shape] = {"cos": "cosine", "linear": "linear"}
SHORTEST_RISE = 0.1  # share of the horizon, in the search space


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCycle:
    """Up to ``max_lr`` over ``pct_start`` of the horizon, then down (torch's OneCycleLR).

    The peak is reached at step r = pct_start horizon - 1; curve(a, b, p) is half a cosine (``cos``)
    or a straight line (``linear``) from a to b::

        rate(t)     = curve(max_lr / div_factor, max_lr, t / r)                 while t <= r, else
                      curve(max_lr, end, (t - r) / (horizon - 1 - r))
        end         = max_lr / (div_factor final_div_factor)
        momentum(t) = the same between max_momentum, base_momentum and max_momentum

    The last step, horizon - 1, has the rate ``end``. torch allows one more ``step()`` after it,
    which affects no training, and raises on the next. The momenta belong to ``cycle_momentum``;
    without it, the optimizer's own momentum is left unchanged.

    Raises:
        ScheduleError: a value is invalid; names the field. ``pct_start`` must make the rise longer
            than one step, as torch divides by r.
    """

    family: ClassVar[str] = "onecycle"

    max_lr: float
    horizon: int
    pct_start: float
    div_factor: float
    final_div_factor: float
    anneal_strategy: Strategy = "cos"
    cycle_momentum: bool = False
    base_momentum: float | None = None
    max_momentum: float | None = None

    def __post_init__(self) -> None:
        require_rate("max_lr", self.max_lr)
        require_steps("horizon", self.horizon, whole=True)
        if not 0 < self.pct_start < 1:
            raise ScheduleError(f"pct_start must be in (0, 1), not {self.pct_start}")
        if not self._rise > 0:
            raise ScheduleError(
                f"pct_start {self.pct_start} of a horizon of {self.horizon} steps is not more than "
                "one step"
            )
        if not 1 <= self.div_factor < np.inf:
            raise ScheduleError(f"div_factor must be 1 or more, not {self.div_factor}")
        if not 1 <= self.final_div_factor < np.inf:
            raise ScheduleError(f"final_div_factor must be 1 or more, not {self.final_div_factor}")
        require_one_of(self, "anneal_strategy", get_args(Strategy))
        require_momenta(self)

    @property
    def _rise(self) -> float:
        """The step at which the peak is reached."""
        return self.pct_start * self.horizon - 1

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the rise, both divisors, the curve, and momentum if the optimizer has one.

        The rise takes 0.1 to 0.5 of the horizon (fastai 0.25, torch 0.3, Smith slightly less than
        half); the initial rate is 1/5 to 1/50 of the peak (Smith 1/10 and 1/20, fastai 1/25), the
        final one 1/10 to 1/100000 of the initial one (Smith "several orders of magnitude", torch
        1/10000).
        """
        if SHORTEST_RISE * setting.horizon <= 1:
            raise ScheduleError(
                f"the rise takes {SHORTEST_RISE:g} of the horizon and must be longer than a step; "
                f"there are {setting.horizon} steps"
            )
        return {
            "max_lr": Parameter(domain=setting.rates),
            "pct_start": Parameter(domain=Range(low=SHORTEST_RISE, high=0.5)),
            "div_factor": Parameter(domain=Range(low=5.0, high=50.0, log=True)),
            "final_div_factor": Parameter(domain=Range(low=10.0, high=1e5, log=True)),
            "anneal_strategy": Parameter(domain=Choice(options=get_args(Strategy))),
            **momentum_parameters(setting),
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """torch's defaults, taken from fastai, and Smith's linear variant; momentum cycled in both.

        The top rate is a third of its upper bound.
        """
        top = space["max_lr"].domain
        assert isinstance(top, Range)
        momenta = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
        common: dict[str, Value] = {"max_lr": top.high / 3, **momenta}
        cosines = {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}
        lines = {"pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 100.0}
        return settings_near(
            space,
            {**common, **cosines, "anneal_strategy": "cos"},
            {**common, **lines, "anneal_strategy": "linear"},
        )

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> OneCycle:
        """The schedule for the searched parameters; see :meth:`space`."""
        return cls(
            max_lr=float(params["max_lr"]),
            horizon=setting.horizon,
            pct_start=float(params["pct_start"]),
            div_factor=float(params["div_factor"]),
            final_div_factor=float(params["final_div_factor"]),
            anneal_strategy=params["anneal_strategy"],  # type: ignore[arg-type]  # checked
            **cycled_momentum(params),
        )

    def at(self, steps: Array) -> tuple[Array, Array | None]:
        """The rate, and with ``cycle_momentum`` the momentum, at each of ``steps``."""
        curves = self.curves(self.horizon)
        momenta = None if curves.momentum is None else self._values(curves.momentum, steps)
        return self._values(curves.rate, steps), momenta

    def _values(self, curve: Curve, steps: Array) -> Array:
        """The values of the two pieces; where they meet, the peak is that of the first."""
        assert isinstance(curve, tuple)
        up, down = curve
        return np.where(steps <= self._rise, values((up,), steps), values((down,), steps))

    def scheduler(self, optimizer: Optimizer) -> OneCycleLR:
        """torch's OneCycleLR; ``cycle_momentum`` cycles the momentum, or the first beta."""
        from torch.optim.lr_scheduler import OneCycleLR

        ratios = relative_rates(optimizer)
        momenta: dict[str, Any] = {}
        if self.cycle_momentum:
            require_momentum(optimizer)
            momenta = {"base_momentum": self.base_momentum, "max_momentum": self.max_momentum}
        return OneCycleLR(
            optimizer,
            max_lr=[self.max_lr * ratio for ratio in ratios],
            total_steps=self.horizon,
            pct_start=self.pct_start,
            anneal_strategy=self.anneal_strategy,
            cycle_momentum=self.cycle_momentum,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
            **momenta,
        )

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`: a call of OneCycleLR with explicit arguments."""
        arguments = {
            "max_lr": per_group(self.max_lr, groups),
            "total_steps": f"round({self.horizon!r} * stretch)",
            "pct_start": repr(self.pct_start),
            "div_factor": repr(self.div_factor),
            "final_div_factor": repr(self.final_div_factor),
            "anneal_strategy": f'"{self.anneal_strategy}"',
            "cycle_momentum": repr(self.cycle_momentum),
        }
        if self.cycle_momentum:
            arguments["base_momentum"] = repr(self.base_momentum)
            arguments["max_momentum"] = repr(self.max_momentum)
        return Snippet(
            imports=("from torch.optim.lr_scheduler import OneCycleLR",),
            body=call("OneCycleLR", arguments),
        )

    def curves(self, horizon: int) -> Curves:
        """Two pieces: the rise and the fall."""
        begin = self.max_lr / self.div_factor
        rate = self._pieces(begin, self.max_lr, begin / self.final_div_factor)
        if not self.cycle_momentum:
            return Curves(rate=rate)
        assert self.max_momentum is not None and self.base_momentum is not None
        momentum = self._pieces(self.max_momentum, self.base_momentum, self.max_momentum)
        return Curves(rate=rate, momentum=momentum)

    def _pieces(self, begin: float, peak: float, end: float) -> tuple[Piece, ...]:
        shape, rise, last = SHAPES[self.anneal_strategy], self._rise, self.horizon - 1
        return (
            Piece(begin=0, until=rise, start=begin, end=peak, shape=shape),
            Piece(begin=rise, until=last, start=peak, end=end, shape=shape),
        )
