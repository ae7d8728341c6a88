"""Figures as markup: well formed, with its text escaped and its ticks round."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from clrsearch.plots.figure import Axis, Band, Curve, Figure, Mark, Panel, Points
from clrsearch.plots.overview import Line, Parallel, Upright
from clrsearch.plots.svg import Drawn, draw_figure, draw_parallel

NASTY = "<script>alert(1)</script> & \"'"


def figure(*panels: Panel, x: Axis | None = None) -> Figure:
    return Figure(title=NASTY, subtitle=NASTY, x=x or Axis(label=NASTY), panels=panels)


def curve(*y: float, x=None, label=NASTY, **keys) -> Curve:
    places = np.arange(1.0, len(y) + 1) if x is None else np.array(x)
    return Curve(label=label, x=places, y=np.array(y), style=0, **keys)


def parsed(drawn: Drawn) -> ElementTree.Element:
    return ElementTree.fromstring(drawn.svg)


def paths(drawn: Drawn, kind: str) -> list[str]:
    found = parsed(drawn).iter("path")
    return [each.attrib["d"] for each in found if kind in each.attrib["class"].split()]


def texts(drawn: Drawn, kind: str) -> list[str]:
    return [
        each.text or ""
        for each in parsed(drawn).iter("text")
        if kind in each.attrib["class"].split()
    ]


def test_every_kind_of_mark_is_drawn_and_every_text_is_text() -> None:
    ends = np.array([1.0, 2.0])
    everything = figure(
        Panel(
            y=Axis(label=NASTY),
            curves=(curve(0.1, 0.2, hint=NASTY),),
            bands=(Band(label=NASTY, x=ends, low=ends, high=ends + 1, style=1),),
            points=(Points(label="p", x=ends, y=ends, style=2, marker="diamond"),),
            marks=(Mark(label=NASTY, x=1.5, side="left"),),
        ),
        Panel(y=Axis(label="", names=(NASTY,)), points=()),
    )
    drawn = draw_figure(everything)
    root = parsed(drawn)
    assert root.attrib["aria-label"] == NASTY
    assert {each.tag for each in root.iter()} == {"svg", "path", "text", "title"}
    assert [each.text for each in root.iter("title")] == [NASTY]
    assert paths(drawn, "diamond")[0].count("z") == 2
    assert paths(drawn, "band")[0].endswith("z")
    assert NASTY in texts(drawn, "name")
    assert (drawn.title, [key.label for key in drawn.keys]) == (NASTY, [NASTY, "p"])


def test_a_curve_has_gaps_and_a_lone_point_is_seen() -> None:
    drawn = draw_figure(
        figure(Panel(y=Axis(label="y"), curves=(curve(1, 2, np.nan, 3, np.inf, 4, 5),)))
    )
    (line,) = paths(drawn, "curve")
    assert line.count("M") == 3
    assert "nan" not in line
    assert "inf" not in line


def test_a_missing_place_is_a_gap_too() -> None:
    drawn = draw_figure(
        figure(Panel(y=Axis(label="y"), curves=(curve(1, 2, 3, x=[1, np.nan, 2]),)))
    )
    assert "nan" not in drawn.svg


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(label="x", low=0, high=20, whole=True), ["0", "5", "10", "15", "20"]),
        (Axis(label="x", low=0.5, high=3.5, whole=True), ["1", "2", "3"]),
        (Axis(label="x", low=0, high=0.25), ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]),
        (Axis(label="x", low=-1, high=1), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (Axis(label="x", low=0, high=2e6), ["0", "5e5", "1e6", "1.5e6", "2e6"]),
        (
            Axis(label="x", low=1e-5, high=1, log=True),
            ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1"],
        ),
        (Axis(label="x", low=0.1, high=1, log=True), ["0.1", "0.2", "0.5", "1"]),
    ],
)
def test_ticks_are_round_numbers(axis, ticks) -> None:
    drawn = draw_figure(figure(Panel(y=Axis(label="", names=("one",))), x=axis))
    assert texts(drawn, "tick") == ticks


def test_one_value_has_an_axis_too() -> None:
    drawn = draw_figure(figure(Panel(y=Axis(label="y"), curves=(curve(3.0, 3.0),))))
    assert "nan" not in drawn.svg
    assert texts(drawn, "tick")[:4] == ["0", "1", "2", "3"]


def test_nothing_to_draw() -> None:
    drawn = draw_figure(figure(Panel(y=Axis(label="y"))))
    assert parsed(drawn).attrib["role"] == "img"
    assert drawn.keys == ()


def test_parallel_coordinates_leave_out_what_a_trial_does_not_have() -> None:
    axes = tuple(Upright(label=NASTY, ticks=((0.0, "a"), (1.0, "b"))) for _ in range(8))
    lines = (
        Line(places=(0.0, None, 1.0, 0.5, 0.5, 0.5, 0.5, 1.0), hint=NASTY, rank="recommended"),
        Line(places=(0.0,) * 8, hint="", rank="other"),
    )
    drawn = draw_parallel(Parallel(family="cyclic", axes=axes, lines=lines))
    assert drawn.broad
    first, second = paths(drawn, "parallel")
    assert (first.count(","), second.count(",")) == (7, 8)
    assert [key.label for key in drawn.keys] == ["recommended", "other complete trials"]
    assert not draw_parallel(Parallel(family="c", axes=axes[:3], lines=())).broad
