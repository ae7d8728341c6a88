"""Hand-written rates: piece by piece, or as a function of the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clrsearch.errors import ScheduleError
from clrsearch.schedules.code import assignment
from clrsearch.schedules.fields import require_count, require_rate
from clrsearch.schedules.parameters import (
    HandWritten,
    Parameter,
    Range,
    RateFunction,
    Setting,
    Space,
    Value,
    settings_near,
)
from clrsearch.schedules.pieces import Curves, Piece
from clrsearch.schedules.schedule import Array, Snippet, set_rates

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

ROUNDING = 1e-9  # tolerance in epochs for sums of fractional epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """rate(t) = scale x the hand-written rate at step t; a LambdaLR.

    ``rates`` are pairs of epochs and a rate, or the name of a function. The epochs of a pair are
    either a number of epochs, starting where the previous pair ended, or a pair of bounds: (10, 15)
    goes from the beginning of the eleventh epoch to the end of the fifteenth. They may be
    fractional, and must fill all ``epochs`` without a gap. ``function`` is the function of that
    name, ``rate(step, steps_per_epoch)``, if it has been loaded; it must return a positive number
    at every step. After the last step, the last rate is held.

    Raises:
        ScheduleError: the pairs leave a gap, overlap or do not end with the epochs, or a rate is
            not positive; names the pair or the step.
    """

    family: ClassVar[str] = "manual"

    rates: HandWritten
    epochs: int
    steps_per_epoch: float
    scale: float = 1.0
    function: RateFunction | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_rate("scale", self.scale)
        if 0 < self.steps_per_epoch % 1 < 1:
            raise ScheduleError(
                "hand-written rates are for epochs of equal length, but these differ: "
                f"{self._horizon} steps in {self.epochs} epochs; leave manual out of the families"
            )
        for name in ("epochs", "steps_per_epoch"):
            require_count(name, getattr(self, name))
        if not isinstance(self.rates, str):
            self._pieces()
        elif self.function is not None:
            self.at(np.arange(self._horizon, dtype=np.float64))

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """A factor on all rates, with the same range as the rates of other families."""
        if setting.manual is None:
            raise ScheduleError(
                'no rates are given: set manual = [[EPOCHS, RATE], ...] or manual = "file.py:NAME"'
            )
        if setting.unit != "epoch":
            raise ScheduleError(
                f"hand-written rates are for epochs, but the length is {setting.horizon} steps; "
                "leave manual out of the families, or set epochs in place of steps"
            )
        cls.build({"scale": 1.0}, setting)
        return {"scale": Parameter(domain=Range(low=1 / 30, high=30.0, log=True))}

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """The rates as written."""
        return settings_near(space, {"scale": 1.0})

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Manual:
        """The hand-written rates, scaled by the searched factor."""
        assert setting.manual is not None
        return cls(
            rates=setting.manual,
            epochs=setting.epochs,
            steps_per_epoch=setting.steps_per_epoch,
            scale=float(params["scale"]),
            function=setting.rate_function,
        )

    @property
    def _horizon(self) -> int:
        return round(self.epochs * self.steps_per_epoch)

    def at(self, steps: Array) -> tuple[Array, None]:
        """The rate at each of ``steps``, which must be whole numbers for a function.

        Raises:
            ScheduleError: the function has not been loaded, or does not return a positive number.
        """
        held = np.minimum(steps, self._horizon - 1)
        if isinstance(self.rates, str):
            written = np.array([self._call(int(step)) for step in held], dtype=np.float64)
        else:
            ends, rates = self._pieces()
            place = np.searchsorted(ends[:-1], held / self.steps_per_epoch, side="right")
            written = np.asarray(rates, dtype=np.float64)[place]
        return self.scale * written, None

    def _call(self, step: int) -> float:
        if self.function is None:
            raise ScheduleError(f"{self.rates} has not been loaded")
        rate = self.function(step, self.steps_per_epoch)
        number = isinstance(rate, Real) and not isinstance(rate, bool)
        if not (number and math.isfinite(rate) and rate > 0):
            raise ScheduleError(
                f"{self.rates} must return a positive number, not {rate!r} at step {step}"
            )
        return float(rate)

    def _pieces(self) -> tuple[list[float], list[float]]:
        """The end of each piece, in epochs, and its rate."""
        ends: list[float] = []
        rates: list[float] = []
        reached = 0.0
        assert not isinstance(self.rates, str)
        for number, (where, rate) in enumerate(self.rates, start=1):
            first, last = where if isinstance(where, Sequence) else (reached, reached + where)
            piece = f"piece {number}"
            require_rate(f"the rate of {piece}", rate)
            if not last - first > ROUNDING:
                raise ScheduleError(f"{piece} must end after it begins, not at epoch {last:g}")
            if first > reached + ROUNDING:
                raise ScheduleError(
                    f"epochs {reached:g} to {first:g}, before {piece}, have no rate"
                )
            if first < reached - ROUNDING:
                raise ScheduleError(
                    f"{piece} begins at epoch {first:g} and overlaps the one before it, "
                    f"which ends at {reached:g}"
                )
            reached = last
            ends.append(self._at_a_step(last))
            rates.append(rate)
            if self._steps_before(ends[-1]) <= self._steps_before(ends[-2] if ends[1:] else 0.0):
                raise ScheduleError(f"{piece} is shorter than a step and would never be used")
        if reached < self.epochs - ROUNDING:
            raise ScheduleError(
                f"epochs {reached:g} to {self.epochs} have no rate: the pieces cover "
                f"{reached:g} of {self.epochs}"
            )
        if reached > self.epochs + ROUNDING:
            raise ScheduleError(
                f"the pieces extend to epoch {reached:g}, but there are only {self.epochs}"
            )
        return ends, rates

    def _at_a_step(self, epoch: float) -> float:
        """``epoch``, or the beginning of a step if it misses one only by a rounding error."""
        steps = epoch * self.steps_per_epoch
        whole = round(steps)
        near = abs(steps - whole) < ROUNDING * self.steps_per_epoch
        return whole / self.steps_per_epoch if near else epoch

    def _steps_before(self, epoch: float) -> int:
        return math.ceil(epoch * self.steps_per_epoch - ROUNDING)

    def scheduler(self, optimizer: Optimizer) -> LambdaLR:
        """A LambdaLR whose factor is the rate itself."""
        from torch.optim.lr_scheduler import LambdaLR

        set_rates(optimizer, 1.0)
        return LambdaLR(optimizer, lambda step: float(self.at(np.array([step], float))[0][0]))

    def code(self, groups: int) -> Snippet:
        """The source of :meth:`scheduler`; a function is imported from its own module."""
        torchs = "from torch.optim.lr_scheduler import LambdaLR"
        scale = "" if self.scale == 1.0 else f"{self.scale!r} * "
        own: tuple[str, str, RateFunction | None] | None = None
        if isinstance(self.rates, str):
            place, _, name = self.rates.partition(":")
            module = PurePath(place).stem if place.endswith(".py") else place
            imports = (torchs, "", f"from {module} import {name}  # your own: {self.rates}")
            own = (module, name, self.function)
            definitions: tuple[str, ...] = ()
            factor = f"float({name}(min(step, last), steps_per_epoch))"
            last: tuple[str, ...] = ("last = EPOCHS * steps_per_epoch - 1",)
        else:
            ends, rates = self._pieces()
            imports = ("import bisect", "", torchs)
            definitions = (
                f"RATES = {tuple(rates)!r}",
                f"ENDS = {tuple(ends[:-1])!r}  # of each but the last, in epochs",
            )
            factor = "RATES[bisect.bisect(ENDS, step / steps_per_epoch)]"
            last = ()
        return Snippet(
            imports=imports,
            definitions=definitions,
            own=own,
            body=(
                *assignment(1.0, groups),
                *last,
                f"return LambdaLR(optimizer, lambda step: {scale}{factor})",
            ),
        )

    def curves(self, horizon: int) -> Curves | None:
        """A constant piece for each pair; None for a user's function, which has no formula."""
        if isinstance(self.rates, str):
            return None
        ends, rates = self._pieces()
        steps = [0, *(self._steps_before(end) for end in ends)]
        return Curves(
            rate=tuple(
                Piece(begin=begin, until=until, start=self.scale * rate, end=self.scale * rate)
                for (begin, until), rate in zip(itertools.pairwise(steps), rates, strict=True)
            )
        )
