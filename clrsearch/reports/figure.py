"""What a figure shows, as plain data that no plotting library has touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Marker = Literal["dot", "disc", "diamond"]
"""A small point, a large one, and a hollow one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is read off one side of a panel.

    ``low`` and ``high`` are its ends, both None where the data may set them. ``names`` stand in the
    place of the numbers 0, 1, ...; a ``whole`` axis has ticks at whole numbers only.
    """

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line; it has a gap where ``y`` is nan. Curves of one ``style`` look the same.

    What has the same label, here and in a band or points, has one entry in the legend together.
    ``hint`` says more of this one where a pointer rests on it.
    """

    label: str
    x: Array
    y: Array
    style: int
    faint: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The area between two lines."""

    label: str
    x: Array
    low: Array
    high: Array
    style: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points that no line joins."""

    label: str
    x: Array
    y: Array
    style: int
    marker: Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line at ``x``; its label stands above it, to its left or right."""

    label: str
    x: float
    side: Literal["left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One field of a figure; bands lie below curves and these below points."""

    y: Axis
    curves: tuple[Curve, ...] = ()
    bands: tuple[Band, ...] = ()
    points: tuple[Points, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels one below the other that share their x axis; the first is the highest."""

    title: str
    subtitle: str
    x: Axis
    panels: tuple[Panel, ...]
