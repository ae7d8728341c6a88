"""Render figures to files: HTML pages with plotly, static images with matplotlib.

The palette is colour-blind safe (M. Okabe and K. Ito, "Color Universal Design", 2008). Curves with
the same line style stay distinct in greyscale.
"""

from __future__ import annotations

import html
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clrsearch.errors import PlanError
from clrsearch.plots.figure import Axis, Figure, Mark, Panel

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

ENDINGS = (".html", ".png", ".svg")

PALETTE = ("#000000", "#009E73", "#E69F00", "#0072B2", "#D55E00", "#56B4E9", "#CC79A7")
DASHES: tuple[tuple[str, Any], ...] = (  # plotly's name, matplotlib's dash pattern
    ("solid", "solid"),
    ("dash", (0, (5, 2))),
    ("dot", (0, (1.2, 1.4))),
    ("dashdot", (0, (6, 2, 1.2, 2))),
)
SAME_DASH = 3  # consecutive curves with the same line style
GREY = "#606060"
MARKERS: dict[str, tuple[str, int, dict[str, Any]]] = {  # plotly, matplotlib
    "dot": ("circle", 5, {"marker": "o", "markersize": 3}),
    "disc": ("circle", 11, {"marker": "o", "markersize": 7}),
    "diamond": ("diamond-open", 10, {"marker": "D", "markersize": 5.5, "markerfacecolor": "none"}),
}

LEGEND, NAME, TEXT = 30, 36, 96  # characters per line
WIDTH = 8.0  # inches, of a static image
DOTS = 200  # per inch, of a PNG
PIXELS = 120  # of an HTML figure per inch of a static image
LOOK = {
    "font.size": 9,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "clrsearch",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
{figure}
</body>
</html>
"""


def require_picture(path: Path) -> None:
    """Check that a figure can be written to ``path``.

    Raises:
        PlanError: the suffix is not one of :data:`ENDINGS`, or see :func:`require_place`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise PlanError(f"{path}: the name of a figure must end in .html, .png or .svg")
    require_place(path)


def require_place(path: Path) -> None:
    """Check that ``path`` can be a file.

    Raises:
        PlanError: it is a folder, or its parent folder does not exist.
    """
    if path.is_dir():
        raise PlanError(f"{path} is a folder: give a file name")
    if not path.parent.is_dir():
        raise PlanError(f"{path} cannot be written: there is no folder {path.parent}")


def save(figure: Figure, path: Path) -> None:
    """Save a figure as a self-contained page (.html, 5 MB) or a static image (.png, .svg).

    The output is reproducible byte for byte.

    Raises:
        PlanError: the suffix is not supported, or the file cannot be written.
    """
    require_picture(path)
    ending = path.suffix.lower()
    content = _page(figure) if ending == ".html" else picture(figure, ending.removeprefix("."))
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PlanError(f"{path} cannot be written: {error.strerror}") from error


def to_plotly(figure: Figure) -> go.Figure:
    """Convert to a plotly figure; numbers are rounded to six significant digits."""
    from plotly.subplots import make_subplots

    drawn = make_subplots(
        rows=len(figure.panels),
        shared_xaxes=True,
        row_heights=_shares(figure),
        vertical_spacing=0.05,
    )
    named: set[str] = set()
    for row, panel in enumerate(figure.panels, start=1):
        traces = list(_traces(panel))
        keys = {trace.name: trace for trace in traces if trace.name not in named}
        for trace in traces:
            trace.showlegend = bool(trace.name) and trace is keys.get(trace.name)
            drawn.add_trace(trace, row=row, col=1)
        named |= keys.keys()
        last = row == len(figure.panels)
        drawn.update_xaxes(_plotly_axis(figure.x, titled=last), row=row, col=1)
        drawn.update_yaxes(_plotly_axis(panel.y), row=row, col=1)
        for mark in panel.marks:
            _plotly_mark(drawn, mark, row, log=figure.x.log)
    subtitle = _escaped(figure.subtitle, TEXT)
    lines = bool(subtitle) + subtitle.count("<br>")
    marks = any(panel.marks for panel in figure.panels)
    drawn.update_layout(
        template="plotly_white",
        font={"color": "black"},
        title={
            "text": f"<b>{_escaped(figure.title, TEXT)}</b>",
            "subtitle": {"text": subtitle},
            "x": 0,
            "xref": "paper",
            "y": 1 - 0.22 / _height(figure),
            "yanchor": "top",
        },
        margin={"l": 70, "r": 20, "b": 60, "t": 60 + 18 * lines + 20 * marks},
        hoverlabel={"namelength": -1},
    )
    return drawn


def _page(figure: Figure) -> bytes:
    drawn = to_plotly(figure).to_html(
        full_html=False,
        include_plotlyjs=True,
        default_height=f"{PIXELS * _height(figure):.0f}px",
        div_id="figure",
        config={"displaylogo": False, "responsive": True},
    )
    return PAGE.format(title=html.escape(_printable(figure.title)), figure=drawn).encode()


def _traces(panel: Panel) -> Iterator[go.Scatter]:
    import plotly.graph_objects as go

    for band in panel.bands:
        yield go.Scatter(
            x=_numbers([*band.x, *band.x[::-1]]),
            y=_numbers([*band.low, *band.high[::-1]]),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor="rgba({},{},{},0.18)".format(*bytes.fromhex(_colour(band.style)[1:])),
            hoverinfo="skip",
            **_named(band.label),
        )
    for curve in panel.curves:
        yield go.Scatter(
            x=_numbers(curve.x),
            y=_numbers(curve.y),
            mode="lines" if len(curve.x) > 1 else "markers",
            opacity=0.4 if curve.faint else 1,
            line={
                "color": _colour(curve.style),
                "dash": _dash(curve.style)[0],
                "width": 1 if curve.faint else 2,
            },
            hoverinfo="x+name" if panel.y.names else "x+y+name",
            **_named(curve.label),
        )
    for points in panel.points:
        symbol, size, _ = MARKERS[points.marker]
        yield go.Scatter(
            x=_numbers(points.x),
            y=_numbers(points.y),
            mode="markers",
            marker={
                "symbol": symbol,
                "size": size,
                "color": _colour(points.style),
                "line": {"width": 1.5 if points.marker == "diamond" else 0},
            },
            hoverinfo="x+name" if panel.y.names else "x+y+name",
            **_named(points.label),
        )


def _named(label: str) -> dict[str, str]:
    name = _escaped(label, LEGEND)
    return {"name": name, "legendgroup": name}


def _plotly_axis(axis: Axis, *, titled: bool = True) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "title": {"text": _escaped(axis.label, TEXT) if titled else ""},
        "zeroline": False,
        "exponentformat": "e",
        "showline": True,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
    }
    if axis.low is not None and axis.high is not None:
        ends = (axis.low, axis.high)
        drawn["range"] = [math.log10(end) for end in ends] if axis.log else list(ends)
        if axis.whole and axis.high - axis.low < 10:
            drawn["dtick"] = 1
    if axis.log:
        drawn["type"] = "log"
    if axis.names:
        drawn |= {
            "tickvals": list(range(len(axis.names))),
            "ticktext": [_escaped(name, NAME) for name in axis.names],
            "range": [-0.6, len(axis.names) - 0.4],
            "automargin": True,
        }
    return drawn


def _plotly_mark(drawn: go.Figure, mark: Mark, row: int, *, log: bool) -> None:
    drawn.add_shape(
        type="line",
        x0=mark.x,
        x1=mark.x,
        y0=0,
        y1=1,
        yref="y domain",
        line={"color": GREY, "dash": "dash", "width": 1.5},
        row=row,
        col=1,
    )
    drawn.add_annotation(
        text=_escaped(mark.label, LEGEND),
        x=math.log10(mark.x) if log else mark.x,  # log10 for annotations, but not for shapes
        xanchor={"left": "right", "right": "left"}[mark.side],
        y=1,
        yref="y domain",
        yanchor="bottom",
        showarrow=False,
        row=row,
        col=1,
    )


def picture(figure: Figure, kind: str) -> bytes:
    """Render a static image; ``kind`` is ``png`` or ``svg``."""
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas

    stream = io.BytesIO()
    with style.context(["default", LOOK]):  # ignore the user's matplotlibrc
        canvas = Canvas(figsize=(WIDTH, _height(figure)), layout="constrained")
        column = canvas.subplots(
            len(figure.panels), sharex=True, squeeze=False, height_ratios=_shares(figure)
        )[:, 0]
        keys: dict[str, list[Artist]] = {}
        for axes, panel in zip(column, figure.panels, strict=True):
            found: dict[str, list[Artist]] = {}
            for label, artist in _artists(axes, panel):
                if label:
                    found.setdefault(label, []).append(artist)
            for label, artists in found.items():
                keys.setdefault(label, artists)
            _ticks(axes, "y", panel.y)
            for mark in panel.marks:
                _mark(axes, mark)
        _ticks(column[-1], "x", figure.x)
        _head(column[0], figure)
        _legend(column[0], keys)
        plain = {"Date": None} if kind == "svg" else {"Software": None}
        canvas.savefig(stream, format=kind, dpi=DOTS, metadata=plain)
    return stream.getvalue()


def _artists(axes: Axes, panel: Panel) -> Iterator[tuple[str, Artist]]:
    for band in panel.bands:
        area = axes.fill_between(
            band.x, band.low, band.high, color=_colour(band.style), alpha=0.18, linewidth=0
        )
        yield band.label, area
    for curve in panel.curves:
        (line,) = axes.plot(
            curve.x,
            curve.y,
            color=_colour(curve.style),
            linestyle=_dash(curve.style)[1],
            linewidth=0.7 if curve.faint else 1.5,
            alpha=0.4 if curve.faint else 1,
            marker="o" if len(curve.x) == 1 else "",
            markersize=4,
        )
        yield curve.label, line
    for points in panel.points:
        _, _, marker = MARKERS[points.marker]
        (line,) = axes.plot(points.x, points.y, color=_colour(points.style), linestyle="", **marker)
        yield points.label, line


def _ticks(axes: Axes, side: Literal["x", "y"], axis: Axis) -> None:
    """Label and scale one axis; call this after everything has been drawn on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    ticks = axes.xaxis if side == "x" else axes.yaxis
    axes.set(**{f"{side}label": _printable(axis.label)})
    ticks.label.set_parse_math(False)
    if axis.log:
        axes.set(**{f"{side}scale": "log"})
    if axis.low is not None and axis.high is not None:
        axes.set(**{f"{side}lim": (axis.low, axis.high)})
    low, high = ticks.get_view_interval()
    powers = FuncFormatter(lambda value, _: _power(value))
    if axis.names:
        names = ["\n".join(textwrap.wrap(_printable(name), NAME)) for name in axis.names]
        ticks.set_ticks(range(len(names)), labels=names, parse_math=False)
        axes.set(**{f"{side}lim": (-0.6, len(names) - 0.4)})
    elif axis.log:
        narrow = math.log10(high / low) < 2.5
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        ticks.set_major_formatter(powers)
        ticks.set_minor_formatter(NullFormatter())
    else:
        steps = [1, 2, 5, 10]
        ticks.set_major_locator(
            MaxNLocator(nbins="auto", integer=axis.whole, steps=steps, min_n_ticks=1)
        )
        if not 1e-3 < max(abs(low), abs(high)) < 1e5:  # avoid a common factor above the axis
            ticks.set_major_formatter(powers)


def _mark(axes: Axes, mark: Mark) -> None:
    axes.axvline(mark.x, color=GREY, linestyle=(0, (5, 2)), linewidth=1)
    axes.annotate(
        _printable(mark.label),
        (mark.x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right" if mark.side == "left" else "left",
        parse_math=False,
    )


def _head(axes: Axes, figure: Figure) -> None:
    """Draw title and subtitle above the marks' labels, left-aligned with the axis."""
    above = 20 if any(panel.marks for panel in figure.panels) else 8
    lines = textwrap.wrap(_printable(figure.subtitle), TEXT)
    for text, size, weight in (
        ("\n".join(lines), 9, "normal"),
        (_printable(figure.title), 11, "bold"),
    ):
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, above),
            textcoords="offset points",
            size=size,
            weight=weight,
            linespacing=1.2,
            parse_math=False,
        )
        above += 4 + 11 * len(lines) if lines else 0


def _legend(axes: Axes, keys: Mapping[str, Sequence[Artist]]) -> None:
    labels = ["\n".join(textwrap.wrap(_printable(label), LEGEND)) for label in keys]
    handles: list[Any] = [tuple(artists) for artists in keys.values()]  # tuples are overlaid
    legend = axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.03),
        frameon=False,
        handlelength=2.8,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _shares(figure: Figure) -> list[float]:
    """Relative heights of the panels; the first is twice as high as the others."""
    return [2.0] + [1.0] * (len(figure.panels) - 1)


def _height(figure: Figure) -> float:
    """Height in inches, enough for the panels or rows and for the legend beside them."""
    rows = max(len(panel.y.names) for panel in figure.panels)
    field = 1.6 + 0.45 * rows if rows else 2.6 + 1.4 * len(figure.panels)
    labels = {each.label for panel in figure.panels for each in panel.curves}
    labels |= {each.label for panel in figure.panels for each in panel.points}
    lines = sum(len(textwrap.wrap(label, LEGEND)) for label in labels)
    return max(field, 0.8 + 0.2 * lines)


def _colour(style: int) -> str:
    return PALETTE[style % len(PALETTE)]


def _dash(style: int) -> tuple[str, Any]:
    return DASHES[style // SAME_DASH % len(DASHES)]


def _power(value: float) -> str:
    """Format a tick of an axis that spans powers of ten: 0.001, 1e-5."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _printable(text: str) -> str:
    """Replace unprintable characters, some of which XML forbids, by spaces."""
    return "".join(each if each.isprintable() else " " for each in text)


def _escaped(text: str, width: int) -> str:
    """Wrap text to ``width`` characters and escape it for plotly, which parses HTML."""
    lines = textwrap.wrap(_printable(text), width)
    return "<br>".join(html.escape(line, quote=False) for line in lines)
