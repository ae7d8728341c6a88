"""The curves that schedules are made of, as functions of NumPy arrays.

Each goes from ``start`` at progress 0 to ``end`` at progress 1.
"""

from __future__ import annotations

import numpy as np

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


def warm_up(steps: Array, length: float) -> Array:
    """(t + 1) / (length + 1): positive from the first step, and 1 after ``length`` steps."""
    return (steps + 1.0) / (length + 1.0)
