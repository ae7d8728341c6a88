"""Draw figures as inline SVG; the page's style sheet sets their colours, in light and dark mode.

A style is a pair of classes: ``s0`` to ``s6`` for the colour and ``d0`` to ``d3`` for the line
style. The width is chosen so that text stays legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from clrsearch.plots.figure import Axis, Curve, Figure, Marker, Panel
from clrsearch.plots.overview import Parallel

WIDTH = 480.0
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 70.0, 22.0, 12.0, 48.0, 20.0
FIRST_PANEL, OTHER_PANEL, ROW = 230.0, 110.0, 58.0  # heights
ROOM = 0.04  # margin at either end of a vertical axis, as a fraction of its span
MARKED = 22.0  # height above a panel for the labels of its marks
COLOURS, SAME_DASH, DASHES = 7, 3, 4  # as in the style sheet
MANY = 250  # SVG elements; with more, they are drawn fainter
LABEL_ABOVE = 0.36  # distance from a row's middle to its name, in rows
UPRIGHT_TOP, UPRIGHT_BOTTOM, UPRIGHT_HEIGHT = 54.0, 22.0, 230.0
NARROWEST = 100.0  # minimum distance between two axes of parallel coordinates


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A legend entry: its label, and the CSS classes and kind of the mark it explains."""

    label: str
    style: str
    kind: str  # line, band, dot, disc or diamond


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure for a page; ``svg`` is markup, everything else plain text.

    A ``broad`` figure needs the full width of the page.
    """

    title: str
    subtitle: str
    svg: str
    keys: tuple[Key, ...]
    broad: bool = False


def draw_figure(figure: Figure) -> Drawn:
    """Draw a figure's panels stacked over a shared x axis."""
    ends = _ends(figure.x, _all_x(figure), 0.0)
    x = _scale(figure.x, ends, LEFT, WIDTH - RIGHT)
    parts: list[str] = []
    top = TOP
    for index, panel in enumerate(figure.panels):
        top += MARKED if panel.marks else 0.0
        height = _panel_height(panel, first=index == 0)
        parts += _panel(panel, x, top, height)
        top += height + BETWEEN
    bottom = top - BETWEEN
    parts += _x_axis(figure.x, ends, x, bottom)
    return Drawn(
        title=figure.title,
        subtitle=figure.subtitle,
        svg=_document(parts, WIDTH, bottom + BOTTOM, figure.title),
        keys=tuple(_keys(figure)),
    )


def draw_parallel(parallel: Parallel) -> Drawn:
    """Draw a family's trials in parallel coordinates; the width depends on the number of axes."""
    between = max(NARROWEST, (WIDTH - 80) / max(len(parallel.axes) - 1, 1))
    width = 80 + between * (len(parallel.axes) - 1)
    x = [40 + between * index for index in range(len(parallel.axes))]

    def y(place: float) -> float:
        return UPRIGHT_TOP + (1 - place) * UPRIGHT_HEIGHT

    parts = []
    for line in parallel.lines:
        points = [
            (x[index], y(place)) for index, place in enumerate(line.places) if place is not None
        ]
        parts.append(
            f'<path class="parallel {line.rank}" d="{_polyline(points)}">'
            f"<title>{escape(line.hint)}</title></path>"
        )
    crowded = between < 1.5 * NARROWEST  # stagger the labels in two rows
    for index, (place, axis) in enumerate(zip(x, parallel.axes, strict=True)):
        parts.append(_line(place, y(0.0), place, y(1.0), "axis"))
        above = 38.0 if crowded and index % 2 else 22.0
        parts.append(_text(place, UPRIGHT_TOP - above, axis.label, "middle", "label"))
        for tick, text in axis.ticks:
            below = 15.0 if tick == 0.0 else -5.0 if tick == 1.0 else 4.0
            parts.append(_text(place, y(tick) + below, text, "middle", "tick halo"))
    title = f"Parameters of {parallel.family}"
    kinds = {"recommended": "recommended", "best": "best tenth", "other": "other complete trials"}
    there = {line.rank for line in parallel.lines}
    return Drawn(
        title=title,
        subtitle="One line per complete trial, from its parameters to its score.",
        svg=_document(parts, width, UPRIGHT_TOP + UPRIGHT_HEIGHT + UPRIGHT_BOTTOM, title),
        keys=tuple(
            Key(label=label, style=f"parallel {rank}", kind="line")
            for rank, label in kinds.items()
            if rank in there
        ),
        broad=width > WIDTH,
    )


def _document(parts: Iterable[str], width: float, height: float, title: str) -> str:
    parts = list(parts)
    crowd = 'class="many" ' if len(parts) > MANY else ""
    return (
        f'<svg {crowd}viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        f'aria-label="{escape(title)}" style="min-width:{width * 0.62:.0f}px">'
        f"{''.join(parts)}</svg>"
    )


def _panel(panel: Panel, x: Callable[[float], float], top: float, height: float) -> Iterator[str]:
    y_values = [value for curve in panel.curves for value in curve.y]
    y_values += [value for points in panel.points for value in points.y]
    y_values += [value for band in panel.bands for value in (*band.low, *band.high)]
    y = _scale(panel.y, y_values, top + height, top, ROOM)
    left, right = LEFT, WIDTH - RIGHT
    names = panel.y.names
    if not names:
        for value, text in _ticks(
            panel.y, *_ends(panel.y, y_values, ROOM), most=max(int(height / 30), 2)
        ):
            yield _line(left, y(value), right, y(value), "grid")
            yield _text(left - 6, y(value) + 4, text, "end", "tick")
        middle = top + height / 2
        yield (
            f'<text class="label" text-anchor="middle" transform="rotate(-90 13 {_n(middle)})" '
            f'x="13" y="{_n(middle)}">{escape(panel.y.label)}</text>'
        )
    yield (  # a nested SVG, which clips its contents
        f'<svg x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(height)}" '
        f'viewBox="{_n(left)} {_n(top)} {_n(right - left)} {_n(height)}">'
    )
    yield from _content(panel, x, y)
    yield "</svg>"
    for place, name in enumerate(names):
        yield _text(left + 4, y(place + LABEL_ABOVE), name, "start", "name halo")
    for mark in panel.marks:
        anchor, aside = ("end", -4.0) if mark.side == "left" else ("start", 4.0)
        yield _line(x(mark.x), top, x(mark.x), top + height, "mark")
        yield _text(x(mark.x) + aside, top - 6, mark.label, anchor, "tick")
    yield _line(left, top, left, top + height, "axis")
    yield _line(left, top + height, right, top + height, "axis")


def _content(
    panel: Panel, x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    for band in panel.bands:
        low = [(x(a), y(b)) for a, b in zip(band.x, band.low, strict=True)]
        high = [(x(a), y(b)) for a, b in zip(band.x, band.high, strict=True)]
        yield f'<path class="band {_classes(band.style)}" d="{_polyline(low + high[::-1])}z"/>'
    for curve in panel.curves:
        yield _curve(curve, x, y)
    for points in panel.points:
        places = [
            (x(a), y(b))
            for a, b in zip(points.x, points.y, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        ]
        yield (
            f'<path class="{points.marker} {_classes(points.style)}" '
            f'd="{"".join(_mark(points.marker, *place) for place in places)}"/>'
        )


def _curve(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A line with gaps where values are missing; isolated points are drawn as dots."""
    drawn, piece = "", list[tuple[float, float]]()
    for a, b in zip([*curve.x, math.nan], [*curve.y, math.nan], strict=True):
        if math.isfinite(a) and math.isfinite(b):
            piece.append((x(a), y(b)))
        elif piece:
            drawn += _polyline(piece if len(piece) > 1 else piece * 2)
            piece = []
    classes = f"curve {_classes(curve.style)}{' faint' if curve.faint else ''}"
    hint = f"<title>{escape(curve.hint)}</title>" if curve.hint else ""
    return f'<path class="{classes}" d="{drawn}">{hint}</path>'


def _x_axis(
    axis: Axis, ends: tuple[float, float], x: Callable[[float], float], bottom: float
) -> Iterator[str]:
    for value, text in _ticks(axis, *ends, most=6):
        yield _line(x(value), bottom, x(value), bottom + 4, "axis")
        yield _text(x(value), bottom + 19, text, "middle", "tick")
    yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 39, axis.label, "middle", "label")


def _scale(
    axis: Axis, values: Sequence[float], start: float, end: float, room: float = 0.0
) -> Callable[[float], float]:
    """A function that maps values to coordinates."""
    low, high = _ends(axis, values, room)
    if axis.log:
        low, high = math.log10(low), math.log10(high)
    per_unit = (end - start) / ((high - low) or 1.0)

    def place(value: float) -> float:
        return start + ((math.log10(value) if axis.log else value) - low) * per_unit

    return place


def _ends(axis: Axis, values: Sequence[float], room: float) -> tuple[float, float]:
    """The ends of an axis; if they come from the data, with a margin of ``room`` times the span.

    A single value is centred between 0 and its double.
    """
    if axis.names:
        return -0.5, len(axis.names) - 0.3
    if axis.low is not None and axis.high is not None:
        return axis.low, axis.high
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = room * (high - low) if high > low else abs(high) or 1.0
    return low - span, high + span


def _ticks(axis: Axis, low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Ticks at round numbers, with their labels."""
    return _log_ticks(low, high, most) if axis.log else _round_ticks(low, high, most, axis.whole)


def _round_ticks(low: float, high: float, most: int, whole: bool) -> list[tuple[float, str]]:
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s for s in (power, 2 * power, 5 * power, 10 * power) if span / s <= most)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(index * step, _number(index * step, step)) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    apart = max(1, math.ceil((last - first) / most))
    values = [d * 10.0**p for p in range(first, last + 1, apart) for d in digits]
    return [(v, _number(v, v)) for v in values if low * 0.999 <= v <= high * 1.001]


def _number(value: float, step: float) -> str:
    """Format a tick with just enough digits for ticks that are ``step`` apart."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def _keys(figure: Figure) -> Iterator[Key]:
    """The legend, one entry per label, curves before points; empty if there is only one label."""
    found: dict[str, Key] = {}
    for panel in figure.panels:
        for curve in panel.curves:
            faint = " faint" if curve.faint else ""
            style = f"{_classes(curve.style)}{faint}"
            found.setdefault(curve.label, Key(label=curve.label, style=style, kind="line"))
        for points in panel.points:
            key = Key(label=points.label, style=_classes(points.style), kind=points.marker)
            found.setdefault(points.label, key)
    return iter(found.values() if len(found) > 1 else ())


def _all_x(figure: Figure) -> list[float]:
    return [
        value
        for panel in figure.panels
        for marks in (panel.curves, panel.points)
        for each in marks
        for value in each.x
    ]


def _panel_height(panel: Panel, *, first: bool) -> float:
    if panel.y.names:
        return ROW * len(panel.y.names) + 10
    return FIRST_PANEL if first else OTHER_PANEL


def _classes(style: int) -> str:
    return f"s{style % COLOURS} d{style // SAME_DASH % DASHES}"


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    first, *others = [f"{_n(a)},{_n(b)}" for a, b in points]
    return f"M{first}L{' '.join(others)}" if others else f"M{first}h0"


def _mark(marker: Marker, x: float, y: float) -> str:
    if marker == "diamond":
        return f"M{_n(x - 5)},{_n(y)}l5,-5 5,5 -5,5z"
    return f"M{_n(x)},{_n(y)}h0"  # a zero-length line with round caps is a dot


def _line(x: float, y: float, x2: float, y2: float, style: str) -> str:
    return f'<path class="{style}" d="M{_n(x)},{_n(y)}L{_n(x2)},{_n(y2)}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str) -> str:
    return (
        f'<text class="{style}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
