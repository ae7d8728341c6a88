"""The values of curves: NumPy arrays of steps in, arrays of values out.

The shapes of pieces go from ``start`` at progress 0 to ``end`` at progress 1.
"""

from __future__ import annotations

import numpy as np

from clrsearch.schedules.pieces import Cycles, Geometric, Piece, Scale, Shares
from clrsearch.schedules.schedule import Array


def progress(steps: Array, first: float, last: float) -> Array:
    """(t - first) / (last - first), clipped to 0 .. 1."""
    return np.clip((steps - first) / (last - first), 0.0, 1.0)


def linear(start: float, end: float, progress: Array) -> Array:
    """start + (end - start) p."""
    return start + (end - start) * progress


def cosine(start: float, end: float, progress: Array) -> Array:
    """end + (start - end) (1 + cos(pi p)) / 2 (Loshchilov and Hutter, arXiv:1608.03983)."""
    return np.asarray(end + (start - end) * (1.0 + np.cos(np.pi * progress)) / 2.0)


def exponential(start: float, end: float, progress: Array) -> Array:
    """start (end / start)^p; both ends are positive."""
    return np.asarray(start * (end / start) ** progress)


def polynomial(start: float, end: float, progress: Array, power: float) -> Array:
    """end + (start - end) (1 - p)^power."""
    return np.asarray(end + (start - end) * (1.0 - progress) ** power)


def one_minus_sqrt(start: float, end: float, progress: Array) -> Array:
    """end + (start - end) (1 - sqrt(p)) (Hägele et al., arXiv:2405.18392)."""
    return np.asarray(end + (start - end) * (1.0 - np.sqrt(progress)))


def values(curve: Shares | Cycles, steps: Array) -> Array:
    """The value of a curve at each of ``steps``; where pieces meet, that of the later one."""
    if isinstance(curve, Cycles):
        return _cycling(curve, steps)
    if isinstance(curve, Geometric):
        since = steps - curve.begin
        return np.asarray(curve.gamma ** (since if curve.every is None else since // curve.every))
    found = _along(curve[0], steps)
    for piece in curve[1:]:
        found = np.where(steps < piece.begin, found, _along(piece, steps))
    return found


def _along(piece: Piece, steps: Array) -> Array:
    """The value of a piece at each of ``steps``; outside it, that of its nearer end."""
    start, end = piece.start, piece.end
    if piece.constant:
        return np.full_like(steps, start)
    place = progress(steps, piece.begin, piece.until)
    match piece.shape:
        case "linear":
            return linear(start, end, place)
        case "cosine":
            return cosine(start, end, place)
        case "exponential":
            return exponential(start, end, place)
        case "polynomial":
            return polynomial(start, end, place, piece.power)
        case "1-sqrt":
            return one_minus_sqrt(start, end, place)


def _cycling(cycles: Cycles, steps: Array) -> Array:
    period = cycles.up + cycles.down
    cycle = np.floor(1 + steps / period)
    place = 1.0 + steps / period - cycle
    peak = cycles.up / period
    height = np.where(place <= peak, place / peak, (place - 1) / (peak - 1))
    if cycles.scale is not None:
        height = height * _scale(cycles.scale, cycle, steps)
    return cycles.foot + (cycles.top - cycles.foot) * height


def _scale(scale: Scale, cycle: Array, steps: Array) -> Array:
    x = cycle if scale.of == "cycle" else steps
    if scale.gamma is None:
        return np.asarray((1.0 + np.sin(x * np.pi / 2.0)) / 2.0)
    return np.asarray(scale.gamma ** (x - scale.since))
