"""Cyclical learning rates: up and down between two bounds, repeatedly.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from clrsearch.errors import ScheduleError
from clrsearch.schedules.code import call, per_group
from clrsearch.schedules.fields import (
    require_momenta,
    require_one_of,
    require_order,
    require_rate,
    require_share,
    require_steps,
    require_with,
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
from clrsearch.schedules.pieces import Curves, Cycles, Scale
from clrsearch.schedules.schedule import Array, Snippet, relative_rates, require_momentum
from clrsearch.schedules.shapes import values

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import CyclicLR

Mode = Literal["triangular", "triangular2", "exp_range"]
ScaleMode = Literal["cycle", "iterations"]

SHORTEST, LONGEST = 2, 10  # stepsizes that Smith's paper recommends, in epochs (section 3.2)


SHORT_CYCLES = 3  # at most, in a run that is shorter than one of Smith's cycles


def is_short(epochs: int) -> bool:
    """Whether a run is too short for a cycle with one of Smith's stepsizes."""
    return epochs < 2 * SHORTEST


def sine(cycle: float) -> float:
    """Amplitudes 1, 1/2, 0, 1/2, 1, ... from cycle to cycle (``scale_mode="cycle"``)."""
    return 0.5 * (1.0 + math.sin(cycle * math.pi / 2.0))


def slow_decay(step: float) -> float:
    """Amplitude 5^(-step / 10000), half after 4307 steps (``scale_mode="iterations"``)."""
    return math.exp(-step * math.log(5.0) * 1e-4)


SCALE_FUNCTIONS: Mapping[str, Callable[[float], float]] = {
    function.__name__: function for function in (sine, slow_decay)
}
"""The functions that ``scale_fn`` can name: of the cycle (from 1) or of the step (from 0)."""
GAMMAS: Mapping[str, float | None] = {"sine": None, "slow_decay": 5.0**-1e-4}
"""Their equivalent ``gamma`` in a :class:`Scale`; None for the sine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cyclic:
    """Linear cycles between ``base_lr`` and ``max_lr`` (Smith, section 3; torch's CyclicLR).

    With stepsizes u up and d down, the cycle is c = floor(1 + t / (u + d)) and the position within
    it x = t / (u + d) - (c - 1)::

        height(t) = x (u + d) / u            while x <= u / (u + d), else (1 - x) (u + d) / d
        rate(t)     = base_lr + (max_lr - base_lr) height(t) scale
        momentum(t) = max_momentum - (max_momentum - base_momentum) height(t) scale

    and scale = 1 (``triangular``), 2^(1 - c) (``triangular2``), gamma^t (``exp_range``), or
    ``scale_fn`` of c or t.

    Either ``mode`` is given, or ``scale_fn`` (one of :data:`SCALE_FUNCTIONS`) with ``scale_mode``,
    which says whether it takes the cycle (from 1) or the step (from 0). ``gamma`` belongs to
    exp_range, the momenta to ``cycle_momentum``; without it, the optimizer's own momentum is left
    unchanged. Stepsizes are in optimizer steps and may be fractional; ``step_size_down`` equals
    ``step_size_up`` if it is None.

    Raises:
        ScheduleError: a value is invalid, even if torch would silently accept it; names the field.
    """

    family: ClassVar[str] = "cyclic"

    base_lr: float
    max_lr: float
    step_size_up: float
    step_size_down: float | None = None
    mode: Mode | None = None
    gamma: float | None = None
    scale_fn: str | None = None
    scale_mode: ScaleMode | None = None
    cycle_momentum: bool = False
    base_momentum: float | None = None
    max_momentum: float | None = None

    def __post_init__(self) -> None:
        require_rate("base_lr", self.base_lr, zero=True)
        require_rate("max_lr", self.max_lr)
        require_order(self, "base_lr", "max_lr")
        for name in ("step_size_up", "step_size_down"):
            size = getattr(self, name)
            if size is not None:
                require_steps(name, size)
        self._require_scale()
        require_momenta(self)

    def _require_scale(self) -> None:
        """Reject a mode or scale function that is unknown or incomplete, or both at once."""
        if (self.mode is None) == (self.scale_fn is None):
            raise ScheduleError("give either mode or scale_fn, not both")
        require_with(self, "scale_fn", ("scale_mode",))
        if self.scale_fn is not None:
            require_one_of(self, "scale_fn", tuple(SCALE_FUNCTIONS))
            require_one_of(self, "scale_mode", get_args(ScaleMode))
        else:
            require_one_of(self, "mode", get_args(Mode))
        if self.mode != "exp_range" and self.gamma is not None:
            raise ScheduleError(f"gamma is only for mode exp_range, not {self.mode}")
        if self.mode == "exp_range":
            require_share("gamma", self.gamma)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """Mode, rates, cycles, the decay of exp_range, and momentum if the optimizer has one.

        The lower rate is searched as a ratio of the upper one, and gamma as the share of the
        amplitude left at the horizon, so that a range means the same for every task. Whole
        ``cycles`` fill the horizon, because the score of a run cut off mid-cycle depends on where
        it is cut; with ``stepsize = "integers"``, the stepsize is searched in whole epochs instead.
        A run too short for Smith's stepsizes, such as a fine-tuning, has 1 to 3 cycles.
        """
        epochs, whole = setting.epochs, setting.stepsize == "whole-cycles"
        if is_short(epochs) and not whole:
            raise ScheduleError(
                f"a cycle takes at least {2 * SHORTEST} {setting.unit}s, "
                f"since stepsizes are {SHORTEST} to {LONGEST}; the run has {epochs}"
            )
        if setting.horizon < 2:
            raise ScheduleError("a cycle takes at least 2 steps; the run has 1")
        if whole:
            fewest, most = math.ceil(epochs / (2 * LONGEST)), epochs // (2 * SHORTEST)
            if is_short(epochs):
                most = min(SHORT_CYCLES, setting.horizon // 2)
            length = {"cycles": Parameter(domain=Range(low=fewest, high=most, integer=True))}
        else:
            length = {"stepsize": Parameter(domain=Range(low=SHORTEST, high=LONGEST, integer=True))}
        return {
            "mode": Parameter(domain=Choice(options=get_args(Mode))),
            "max_lr": Parameter(domain=setting.rates),
            "base_ratio": Parameter(domain=Range(low=1e-3, high=0.5, log=True)),
            **length,
            "amplitude_left": Parameter(
                domain=Range(low=0.01, high=0.9, log=True), when=("mode", "exp_range")
            ),
            **momentum_parameters(setting),
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Smith's advice, once per mode: base a quarter of the top, stepsize 4, momentum cycled.

        The top rate is a third of its upper bound; values outside the bounds are clipped.
        """
        top = space["max_lr"].domain
        assert isinstance(top, Range)
        counts = range(1, max(setting.epochs // (2 * SHORTEST), 1) + 1)
        wanted: dict[str, Value] = {
            "max_lr": top.high / 3,
            "base_ratio": 0.25,
            "cycles": min(counts, key=lambda n: abs(setting.epochs / (2 * n) - 4)),
            "stepsize": 4,
            "amplitude_left": 0.1,
            "cycle_momentum": True,
            "base_momentum": 0.85,
            "max_momentum": 0.95,
        }
        modes = space["mode"].domain
        assert isinstance(modes, Choice)
        return settings_near(space, *({**wanted, "mode": mode} for mode in modes.options))

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Cyclic:
        """The schedule for the searched parameters; see :meth:`space`.

        Raises:
            ScheduleError: half a cycle would be shorter than a step.
        """
        max_lr = float(params["max_lr"])
        if "cycles" in params:
            step_size = setting.horizon / (2 * int(params["cycles"]))
        else:
            step_size = float(params["stepsize"]) * setting.steps_per_epoch
        if step_size < 1:
            raise ScheduleError(f"half a cycle would be shorter than a step: {step_size:.3g}")
        left = params.get("amplitude_left")
        return cls(
            base_lr=max_lr * float(params["base_ratio"]),
            max_lr=max_lr,
            step_size_up=step_size,
            mode=params["mode"],  # type: ignore[arg-type]  # checked in __post_init__
            gamma=None if left is None else float(left) ** (1 / setting.horizon),
            **cycled_momentum(params),
        )

    def at(self, steps: Array) -> tuple[Array, Array | None]:
        """The rate, and with ``cycle_momentum`` the momentum, at each of ``steps``."""
        curves = self.curves(0)
        momenta = None if curves.momentum is None else values(curves.momentum, steps)
        return values(curves.rate, steps), momenta

    def scheduler(self, optimizer: Optimizer) -> CyclicLR:
        """torch's CyclicLR; ``cycle_momentum`` cycles the momentum, or the first beta."""
        from torch.optim.lr_scheduler import CyclicLR

        ratios = relative_rates(optimizer)
        if self.cycle_momentum:
            require_momentum(optimizer)
        return CyclicLR(
            optimizer,
            base_lr=[self.base_lr * ratio for ratio in ratios],
            max_lr=[self.max_lr * ratio for ratio in ratios],
            step_size_up=self.step_size_up,  # type: ignore[arg-type]  # torch turns it into a float
            step_size_down=self.step_size_down,  # type: ignore[arg-type]
            cycle_momentum=self.cycle_momentum,
            **self._given(),
        )

    def _given(self) -> dict[str, Any]:
        """CyclicLR's arguments other than rates and sizes, as far as they are set."""
        names = ("mode", "gamma", "scale_mode", "base_momentum", "max_momentum")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.scale_fn is not None:
            given["scale_fn"] = SCALE_FUNCTIONS[self.scale_fn]
        return given

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`: a call of CyclicLR with explicit arguments."""
        arguments = {
            "base_lr": per_group(self.base_lr, groups),
            "max_lr": per_group(self.max_lr, groups),
            "step_size_up": f"{self.step_size_up!r} * stretch",
        }
        if self.step_size_down is not None:
            arguments["step_size_down"] = f"{self.step_size_down!r} * stretch"
        imports: tuple[str, ...] = ("from torch.optim.lr_scheduler import CyclicLR",)
        definitions: tuple[str, ...] = ()
        if self.scale_fn is None:
            arguments["mode"] = f'"{self.mode}"'
        else:
            imports = ("import math", "", *imports)
            definitions = tuple(inspect.getsource(SCALE_FUNCTIONS[self.scale_fn]).splitlines())
            in_cycles = self.scale_mode == "cycle"
            arguments["scale_fn"] = (
                self.scale_fn if in_cycles else f"lambda step: {self.scale_fn}(step / stretch)"
            )
            arguments["scale_mode"] = f'"{self.scale_mode}"'
        if self.mode == "exp_range":
            arguments["gamma"] = f"{self.gamma!r} ** (1 / stretch)"
        arguments["cycle_momentum"] = repr(self.cycle_momentum)
        if self.cycle_momentum:
            arguments["base_momentum"] = repr(self.base_momentum)
            arguments["max_momentum"] = repr(self.max_momentum)
        return Snippet(imports=imports, definitions=definitions, body=call("CyclicLR", arguments))

    def curves(self, horizon: int) -> Curves:
        """Cycles of the rate and, inverted, of the momentum."""
        cycles = Cycles(
            foot=self.base_lr,
            top=self.max_lr,
            up=self.step_size_up,
            down=self.step_size_down or self.step_size_up,
            scale=self._scale_data(),
        )
        if not self.cycle_momentum:
            return Curves(rate=cycles)
        assert self.max_momentum is not None and self.base_momentum is not None
        momentum = replace(cycles, foot=self.max_momentum, top=self.base_momentum)
        return Curves(rate=cycles, momentum=momentum)

    def _scale_data(self) -> Scale | None:
        if self.scale_fn is not None:
            of: Literal["cycle", "step"] = "cycle" if self.scale_mode == "cycle" else "step"
            return Scale(of=of, gamma=GAMMAS[self.scale_fn])
        if self.mode == "triangular2":
            return Scale(of="cycle", gamma=0.5, since=1)
        return Scale(of="step", gamma=self.gamma) if self.mode == "exp_range" else None
