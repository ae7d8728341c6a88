"""A schedule as plain data, for code in other frameworks: curves laid end to end, or cycles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "exponential", "polynomial", "1-sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """From ``start`` at step ``begin`` to ``end`` at step ``until``, along a curve.

    ``shape`` names the curve (see ``clrsearch.schedules.shapes`` for the equations), ``power`` is
    the exponent of a polynomial. A constant has equal ends. Steps may be fractional.
    """

    begin: float
    until: float
    start: float
    end: float
    shape: Shape = "linear"
    power: float = 1.0

    @property
    def constant(self) -> bool:
        """Whether the value stays the same."""
        return self.start == self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A factor on the height of cycles: gamma^(x - since), or (1 + sin(x pi / 2)) / 2.

    The sine is used if gamma is None. x is the cycle, counted from 1, or the step, counted from 0.
    """

    of: Literal["cycle", "step"]
    gamma: float | None
    since: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """From ``foot`` to ``top`` in ``up`` steps and back in ``down``, linearly, repeated forever.

    The value at a step is foot + (top - foot) height scale, with a height from 0 to 1.
    """

    foot: float
    top: float
    up: float
    down: float
    scale: Scale | None = None


Curve = tuple[Piece, ...] | Cycles
"""Pieces in order, the first beginning at step 0 and the last holding its end value; or cycles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The rate of the first parameter group, and the momentum if the schedule sets it."""

    rate: Curve
    momentum: Curve | None = None
