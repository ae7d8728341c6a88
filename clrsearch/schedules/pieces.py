"""A schedule as plain data: curves laid end to end, or cycles. What other frameworks' code says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "exponential", "polynomial", "1-sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """From ``start`` at the step ``begin`` to ``end`` at the step ``until``, along a curve.

    ``shape`` names the curve (``clrsearch.schedules.shapes`` has the equations), ``power`` is that
    of a polynomial. A constant has equal ends. Steps need not be whole.
    """

    begin: float
    until: float
    start: float
    end: float
    shape: Shape = "linear"
    power: float = 1.0

    @property
    def constant(self) -> bool:
        """Whether it stays at one value."""
        return self.start == self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A factor on the height of cycles: gamma^(x - since), or (1 + sin(x pi / 2)) / 2 without one.

    x is the cycle, counted from 1, or the step, from 0.
    """

    of: Literal["cycle", "step"]
    gamma: float | None
    since: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """From ``foot`` to ``top`` in ``up`` steps and back in ``down``, in straight lines, for ever.

    The value at a step is foot + (top - foot) height scale, with a height from 0 to 1.
    """

    foot: float
    top: float
    up: float
    down: float
    scale: Scale | None = None


Curve = tuple[Piece, ...] | Cycles
"""Pieces in their order, of which the first begins at step 0 and the last holds its end; or
cycles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The rates of the first parameter group, and the momenta where the schedule sets them."""

    rate: Curve
    momentum: Curve | None = None
