"""A schedule as plain data, from which its values and its code in any framework derive."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

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
class Geometric:
    """gamma^(t - begin), without an end; with ``every``, gamma^floor((t - begin) / every)."""

    begin: float
    gamma: float
    every: float | None = None


Shares = tuple[Piece, ...] | Geometric
"""The share of the peak rate: pieces in order, the last holding its end value; or a power."""


def stairs(begins: Sequence[float], gamma: float) -> tuple[Piece, ...]:
    """Constant pieces from each of ``begins`` on: 1, and ``gamma`` times the previous one."""
    heights = (gamma ** np.arange(len(begins))).tolist()
    return tuple(
        Piece(begin=begin, until=until, start=height, end=height)
        for (begin, until), height in zip(
            itertools.pairwise([*begins, math.inf]), heights, strict=True
        )
    )


def pieces_before(horizon: float, shares: Shares) -> tuple[Piece, ...]:
    """The pieces that begin before the horizon, at which one without an end now ends.

    An exponential is at least one step long.
    """
    if isinstance(shares, Geometric):
        begin, gamma, every = shares.begin, shares.gamma, shares.every
        if every is None:
            until = max(float(horizon), begin + 1.0)
            end = gamma ** (until - begin)
            return (Piece(begin=begin, until=until, start=1.0, end=end, shape="exponential"),)
        drops = math.ceil((horizon - begin) / every)
        shares = stairs([begin + index * every for index in range(drops)], gamma)
    return tuple(
        replace(piece, until=min(piece.until, horizon)) if piece.constant else piece
        for piece in shares
        if piece.begin < horizon
    )


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
