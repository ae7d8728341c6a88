"""Contents of a figure, as plain data independent of any plotting library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Marker = Literal["dot", "disc", "diamond"]
"""A small dot, a large disc, and a hollow diamond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a panel.

    Attributes:
        label: its label.
        log: whether its scale is logarithmic.
        low: lower end; None with ``high`` to fit the data.
        high: upper end.
        names: category names shown instead of the numbers 0, 1, ...
        whole: whether ticks are at whole numbers only.
    """

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A line, with gaps where ``y`` is NaN.

    Curves, bands and points with the same label share a legend entry.

    Attributes:
        label: its legend entry.
        x: x coordinates.
        y: y coordinates.
        style: index of its colour and line style.
        faint: whether it is drawn faintly.
        hint: tooltip.
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
    """Points without a connecting line."""

    label: str
    x: Array
    y: Array
    style: int
    marker: Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line at ``x``, with a label at its top, to its left or right."""

    label: str
    x: float
    side: Literal["left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One subplot of a figure; bands are drawn first, then curves, then points."""

    y: Axis
    curves: tuple[Curve, ...] = ()
    bands: tuple[Band, ...] = ()
    points: tuple[Points, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Stacked panels with a shared x axis; the first one is at the top."""

    title: str
    subtitle: str
    x: Axis
    panels: tuple[Panel, ...]
