"""Figures of schedules, range tests, learning curves, and scores on fresh seeds.

Curves with more points than a screen has pixels are downsampled with M4, which does not change the
plot (U. Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clrsearch.plots.figure import Array, Axis, Band, Curve, Figure, Mark, Marker, Panel, Points
from clrsearch.tasks import Direction

MOST_POINTS = 2000  # per curve
WIDE = 8  # use a log axis if the highest peak of the schedules is over 8 times the lowest
DEEP = 1000  # a log axis ends at most this factor below the lowest peak
ROOM = 0.05  # margin at either end of an axis, as a fraction of it
FIRST, OTHER = 0, 2  # styles of a figure with two kinds of lines, both solid
MOST_BANDS = 4  # learning curves with bands in one figure
BESIDE = 0.22  # vertical offset of fresh scores and search score from the mean, in rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleCurve:
    """A schedule's learning rates and, if it sets them, momenta; (T,) arrays."""

    label: str
    rates: Array
    momenta: Array | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTestCurves:
    """Losses of a range test with S seeds at P learning rates, and the proposed bounds.

    ``training`` and ``validation`` are (S, P) and may contain NaN and inf; the smoothed losses are
    (P,). ``base`` and ``maximum`` are None if the test proposes no bounds; ``sentence`` says why.
    """

    rates: Array
    training: Array
    validation: Array
    smoothed_training: Array
    smoothed_validation: Array
    base: float | None
    maximum: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """A schedule's metric, ``values`` (S, E) with NaN if missing, and its rates (T,)."""

    label: str
    values: Array
    rates: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalistScores:
    """A finalist's fresh scores, their mean and its interval, and its score in the search."""

    label: str
    scores: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    searched: float
    chosen: bool


def schedules_figure(
    schedules: Sequence[ScheduleCurve], *, steps_per_epoch: float | None
) -> Figure:
    """Plot learning rates over the horizon, and momenta below if any schedule sets them.

    The horizon is in epochs or, where they are not known to have so many steps, in steps.

    The rate axis is logarithmic if the schedules' peaks differ by more than a factor of 8; on a
    linear axis the lower schedules would look like zero.
    """
    axis, edge = _rate_axis([each.rates for each in schedules])
    per = steps_per_epoch or 1.0
    panels = [
        Panel(
            y=axis,
            curves=tuple(
                _along(each.label, each.rates, per, style, axis)
                for style, each in enumerate(schedules)
            ),
        )
    ]
    if any(each.momenta is not None for each in schedules):
        below = Axis(label="momentum")
        panels.append(
            Panel(
                y=below,
                curves=tuple(
                    _along(each.label, each.momenta, per, style, below)
                    for style, each in enumerate(schedules)
                    if each.momenta is not None
                ),
            )
        )
    return Figure(
        title="Learning-rate schedule" if len(schedules) == 1 else "Learning-rate schedules",
        subtitle=edge,
        x=Axis(
            label="steps"
            if steps_per_epoch is None
            else f"epochs ({steps_per_epoch:g} steps each)",
            low=0.0,
            high=max((len(each.rates) / per for each in schedules), default=1.0),
            whole=True,
        ),
        panels=tuple(panels),
    )


def range_test_figure(test: RangeTestCurves) -> Figure:
    """Plot each seed's losses and the smoothed losses over the learning rate, and the bounds.

    The loss axis ends slightly above the initial loss; how far a loss diverged carries no
    information.
    """
    kinds = (
        (FIRST, "training loss", test.training, test.smoothed_training),
        (OTHER, "validation loss", test.validation, test.smoothed_validation),
    )
    axis = _loss_axis(test)
    seeds = tuple(
        Curve(
            label=f"{name}, each seed",
            x=test.rates,
            y=inside(axis, losses),
            style=style,
            faint=True,
        )
        for style, name, matrix, _ in kinds
        for losses in matrix
    )
    means = tuple(
        Curve(label=f"{name}, smoothed", x=test.rates, y=inside(axis, mean), style=style)
        for style, name, _, mean in kinds
    )
    marks = []
    if test.base is not None:
        marks.append(Mark(label=f"base {test.base:.3g}", x=test.base, side="left"))
    if test.maximum is not None:
        marks.append(Mark(label=f"max {test.maximum:.3g}", x=test.maximum, side="right"))
    return Figure(
        title="Learning-rate range test",
        subtitle=test.sentence,
        x=Axis(
            label="learning rate", log=True, low=float(test.rates[0]), high=float(test.rates[-1])
        ),
        panels=(Panel(y=axis, curves=seeds + means, marks=tuple(marks)),),
    )


def learning_curves_figure(
    schedules: Sequence[LearningCurve],
    *,
    metric: str,
    steps_per_epoch: float,
    ends: Sequence[int] | None = None,
) -> Figure:
    """Plot the metric after each epoch, averaged over seeds, and the learning rates below.

    If it was measured otherwise, ``ends`` has the steps after which it was, and all is over steps.
    A mean ends where its first seed ends: the mean of the remaining seeds would flatter the
    schedule. Bands over the seeds are drawn for up to four schedules; more would hide the lines.
    """
    finite = [np.where(np.isfinite(each.values), each.values, np.nan) for each in schedules]
    begun = [each[~np.isnan(each).all(axis=1)] for each in finite]  # (S, E) each
    several, banded = max(map(len, begun), default=0) > 1, len(schedules) <= MOST_BANDS
    drawn = begun if banded else [_mean(each)[np.newaxis] for each in begun if len(each)]
    values_axis = late_axis(f"validation {metric}", drawn)
    rates_axis, edge = _rate_axis([each.rates for each in schedules])
    measured = max((each.values.shape[1] for each in schedules), default=1)
    places = np.arange(1.0, measured + 1) if ends is None else np.array(ends, dtype=np.float64)
    per = steps_per_epoch if ends is None else 1.0
    bands, means, rates = [], [], []
    cut = False
    for style, (each, values) in enumerate(zip(schedules, begun, strict=True)):
        if len(values):
            means.append(_mean_over_seeds(each.label, places, values, style, values_axis))
            cut = cut or bool(np.isnan(_mean(values)).any() and len(values) > 1)
        if len(values) > 1 and banded:
            bands.append(_band_over_seeds(each.label, places, values, style, values_axis))
        rates.append(_along(each.label, each.rates, per, style, rates_axis))
    return Figure(
        title="Learning curves",
        subtitle=" ".join(
            sentence
            for sentence, needed in (
                ("Lines: means over the seeds.", several),
                ("Bands: from the lowest seed to the highest.", bands),
                ("A line ends where its first seed does.", cut),
                (edge, edge),
            )
            if needed
        ),
        x=Axis(
            label="epochs" if ends is None else "steps", low=0.0, high=float(places[-1]), whole=True
        ),
        panels=(
            Panel(y=values_axis, curves=tuple(means), bands=tuple(bands)),
            Panel(y=rates_axis, curves=tuple(rates)),
        ),
    )


def scores_figure(
    finalists: Sequence[FinalistScores], *, metric: str, direction: Direction
) -> Figure:
    """Plot one row per finalist: fresh scores, their mean and interval, and the search score.

    The best mean is at the top; finalists without a mean, which diverged on every seed, are at the
    bottom.
    """
    sign, better = (-1.0, "lower") if direction == "minimize" else (1.0, "higher")
    worst_first = sorted(
        finalists, key=lambda each: sign * each.mean if math.isfinite(each.mean) else -math.inf
    )
    rows = list(enumerate(worst_first))
    fresh = [(score, row - BESIDE) for row, each in rows for score in each.scores]
    searched = [(each.searched, row + BESIDE) for row, each in rows]
    standings = [
        _mean_and_interval(label, style, found)
        for label, style, is_chosen in (("mean", FIRST, False), ("recommended: mean", OTHER, True))
        if (found := [(row, each) for row, each in rows if each.chosen is is_chosen])
    ]
    ends = [end for each in finalists for end in (each.low, each.high) if end is not None]
    middles = [value for each in finalists for value in (*each.scores, each.mean, each.searched)]
    names = tuple(f"{each.label}{', recommended' * each.chosen}" for each in worst_first)
    return Figure(
        title="Scores on fresh seeds",
        subtitle="",
        x=axis_around(f"{metric} ({better} is better)", ends + middles),
        panels=(
            Panel(
                y=Axis(label="", names=names),
                curves=tuple(interval for interval, _ in standings if len(interval.x)),
                points=(
                    *(mean for _, mean in standings),
                    _points("one fresh seed", FIRST, "dot", fresh),
                    _points("score in the search", FIRST, "diamond", searched),
                ),
            ),
        ),
    )


def thinned(y: Array, most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Indices of at most ``most`` points that give the same plot as ``y``.

    If ``y`` is piecewise linear with few bends, these are the bends. Otherwise ``y`` is divided
    into intervals, and the first, last, lowest and highest point of each is kept.
    """
    if len(y) <= most:
        return np.arange(len(y))
    bends = np.flatnonzero(np.abs(np.diff(y, n=2)) > 1e-12 * np.abs(y).max()) + 1
    kept = np.concatenate([[0], bends, [len(y) - 1]])
    if len(kept) <= most:
        error = np.abs(np.interp(np.arange(len(y)), kept, y[kept]) - y).max()
        if error <= 1e-4 * np.ptp(y):  # no slight curvature was taken for a line
            return kept
    edges = np.linspace(0, len(y), most // 4 + 1).astype(np.intp)
    return np.unique(
        [
            index
            for start, stop in pairwise(edges)
            for index in (
                start,
                start + y[start:stop].argmin(),
                start + y[start:stop].argmax(),
                stop - 1,
            )
        ]
    )


def _along(label: str, values: Array, per: float, style: int, axis: Axis) -> Curve:
    """A value at every step, ``per`` of them to a unit of the x axis."""
    shown = inside(axis, values)
    kept = thinned(np.log(shown) if axis.log else shown)
    return Curve(label=label, x=kept / per, y=shown[kept], style=style)


def _mean(values: Array) -> Array:
    """Mean over seeds, (S, E) to (E,); NaN unless all seeds have a value."""
    return np.asarray(values.mean(axis=0))


def _mean_over_seeds(label: str, x: Array, values: Array, style: int, axis: Axis) -> Curve:
    mean = _mean(values)
    all_have = np.flatnonzero(~np.isnan(mean))
    return Curve(
        label=label,
        x=x[all_have],
        y=inside(axis, mean[all_have]),
        style=style,
    )


def _band_over_seeds(label: str, x: Array, values: Array, style: int, axis: Axis) -> Band:
    some_have = np.flatnonzero(~np.isnan(values).all(axis=0))
    return Band(
        label=label,
        x=x[some_have],
        low=inside(axis, np.nanmin(values[:, some_have], axis=0)),
        high=inside(axis, np.nanmax(values[:, some_have], axis=0)),
        style=style,
    )


def _mean_and_interval(
    label: str, style: int, rows: Sequence[tuple[int, FinalistScores]]
) -> tuple[Curve, Points]:
    ends = [
        (value, row)
        for row, each in rows
        if each.low is not None and each.high is not None
        for value in (each.low, each.high, math.nan)
    ]
    label = f"{label} and 95 % interval" if ends else label
    x, y = _columns(ends)
    means = _points(label, style, "disc", [(each.mean, row) for row, each in rows])
    return Curve(label=label, x=x, y=y, style=style), means


def _points(
    label: str, style: int, marker: Marker, places: Sequence[tuple[float, float]]
) -> Points:
    x, y = _columns(places)
    return Points(label=label, x=x, y=y, style=style, marker=marker)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    array = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _rate_axis(schedules: Sequence[Array]) -> tuple[Axis, str]:
    """The axis for several schedules' learning rates, and a note on its lower edge if needed."""
    positive = [rates[rates > 0] for rates in schedules if (rates > 0).any()]
    peaks = [rates.max() for rates in positive]
    if not peaks or max(peaks) <= WIDE * min(peaks):
        return Axis(label="learning rate"), ""
    low = max(min(rates.min() for rates in positive), min(peaks) / DEEP) / 1.25
    axis = Axis(label="learning rate", log=True, low=low, high=1.25 * max(peaks))
    deeper = any((rates < low).any() for rates in schedules)
    return axis, f"Rates below {low:.2g} are drawn at the lower edge." if deeper else ""


def _loss_axis(test: RangeTestCurves) -> Axis:
    """An axis from the lowest loss to slightly above the smoothed losses at the first rate."""
    means = np.stack([test.smoothed_training, test.smoothed_validation])
    everything = np.concatenate([test.training, test.validation, means])
    seen = means[np.isfinite(means)]
    if not seen.size:
        return Axis(label="loss")
    start = max(mean[np.isfinite(mean)][0] for mean in means if np.isfinite(mean).any())
    low = everything[np.isfinite(everything)].min()
    span = (start - low) or abs(start) or 1.0
    return Axis(label="loss", low=low - ROOM * span, high=start + 0.3 * span)


def late_axis(label: str, values: Sequence[Array]) -> Axis:
    """An axis that fits the values after the first fifth of the epochs, without outliers.

    Late epochs matter most, and the first epochs' values would compress them into a line. Outliers
    are what J. W. Tukey calls "far out" (Exploratory Data Analysis, 1977), per schedule.
    """
    ends = [end for each in values for end in ends_within(each[:, each.shape[1] // 5 :])]
    return axis_around(label, ends)


def ends_within(values: Array) -> list[float]:
    """Lowest and highest finite value, limited to Tukey's outer fences; empty without values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return []
    lower, upper = np.quantile(finite, [0.25, 0.75])
    far = 3 * (upper - lower)
    return [max(float(finite.min()), lower - far), min(float(finite.max()), upper + far)]


def axis_around(label: str, values: Sequence[float]) -> Axis:
    """An axis that fits all finite ``values``, with a margin at both ends."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Axis(label=label)
    low, high = min(finite), max(finite)
    room = ROOM * ((high - low) or abs(high) or 1.0)
    return Axis(label=label, low=low - room, high=high + room)


def inside(axis: Axis, values: Array) -> Array:
    """Clip values to at most one axis length beyond the axis; on a log axis, to the axis itself.

    Infinite values are clipped like finite ones, or become NaN if the axis has no limits.
    """
    if axis.low is None or axis.high is None:
        return np.where(np.isfinite(values), values, np.nan)
    beyond = 0.0 if axis.log else axis.high - axis.low
    return np.clip(values, axis.low - beyond, axis.high + beyond)
