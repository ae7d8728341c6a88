"""Figures as pages and pictures: what is in the files, and what cannot be written."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from clrsearch.errors import PlanError
from clrsearch.plots.draw import save, to_plotly
from clrsearch.plots.figures import (
    Axis,
    Band,
    Curve,
    Figure,
    Mark,
    Panel,
    Points,
)

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert(1)</script> & $x_1$ %{x} \x00"


def curve(label: str, *y: float, style: int = 0) -> Curve:
    return Curve(label=label, x=np.arange(1.0, len(y) + 1), y=np.array(y), style=style)


def figure(*panels: Panel, title: str = "Title", subtitle: str = "", x: Axis | None = None):
    return Figure(title=title, subtitle=subtitle, x=x or Axis(label="epoch"), panels=panels)


@pytest.fixture
def everything() -> Figure:
    """One of each kind of mark, on linear, logarithmic and named axes."""
    band = Band(
        label="cosine",
        x=np.array([1.0, 2.0]),
        low=np.array([0.1, 0.2]),
        high=np.array([0.3, 0.4]),
        style=0,
    )
    points = Points(
        label="searched", x=np.array([1.0]), y=np.array([1.0]), style=2, marker="diamond"
    )
    return figure(
        Panel(
            y=Axis(label="accuracy"),
            curves=(curve("cosine", 0.2, 0.3), curve("cyclic", 0.1, NAN, 0.123456789, style=1)),
            bands=(band,),
            marks=(Mark(label="base 1", x=1.0, side="left"),),
        ),
        Panel(
            y=Axis(label="rate", log=True, low=1e-5, high=1.0),
            curves=(curve("cosine", 1e-5, 0.5),),
        ),
        Panel(y=Axis(label="", names=("worse", "better")), points=(points,)),
        subtitle="Under the title.",
    )


def test_the_traces_of_plotly(everything) -> None:
    drawn = to_plotly(everything)
    assert [trace.name for trace in drawn.data] == [
        *("cosine", "cosine", "cyclic"),
        "cosine",
        "searched",
    ]
    band, mean, cyclic, rate, searched = drawn.data
    assert (list(band.x), list(band.y)) == ([1, 2, 2, 1], [0.1, 0.2, 0.4, 0.3])
    assert list(mean.y) == [0.2, 0.3]
    assert list(cyclic.y) == [0.1, None, 0.123457]
    assert list(rate.y) == [1e-5, 0.5]
    assert list(searched.x) == [1]
    assert [bool(trace.showlegend) for trace in drawn.data] == [False, True, True, False, True]
    assert mean.line.color == rate.line.color != cyclic.line.color
    assert drawn.layout.yaxis2.type == "log"
    assert list(drawn.layout.yaxis2.range) == [-5, 0]
    assert list(drawn.layout.yaxis3.ticktext) == ["worse", "better"]
    assert drawn.layout.xaxis3.title.text == "epoch"


def test_a_mark_on_a_logarithmic_axis_has_its_label_above_it() -> None:
    panel = Panel(
        y=Axis(label="loss"),
        curves=(curve("a", 1.0, 2.0),),
        marks=(Mark(label="base 0.001", x=0.001, side="left"),),
    )
    drawn = to_plotly(figure(panel, x=Axis(label="rate", log=True, low=1e-4, high=1.0)))
    assert drawn.layout.shapes[0].x0 == 0.001
    assert drawn.layout.annotations[0].x == pytest.approx(-3)


def test_many_curves_differ_in_colour_or_line_style() -> None:
    curves = tuple(curve(str(style), 0.1, style, style=style) for style in range(12))
    lines = [each.line for each in to_plotly(figure(Panel(y=Axis(label="y"), curves=curves))).data]
    assert len({(line.color, line.dash) for line in lines}) == 12
    assert len({line.dash for line in lines}) == 4


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_a_page_needs_no_network_and_runs_no_label(tmp_path) -> None:
    panel = Panel(y=Axis(label=NASTY, names=(NASTY,)), curves=(curve(NASTY, 0.0, 0.0),))
    nasty = figure(panel, title=NASTY, subtitle=NASTY, x=Axis(label=NASTY))
    save(nasty, tmp_path / "nasty.html")
    plain = figure(Panel(y=Axis(label="y"), curves=(curve("a", 0.0, 0.0),)))
    save(plain, tmp_path / "plain.html")
    pages = []
    for name in ("nasty.html", "plain.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "<script>alert" not in text
        pages.append(Page())
        pages[-1].feed(text)
    assert pages[0].tags == pages[1].tags
    assert pages[0].sources == []
    drawn = to_plotly(nasty)
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;"
    layout = drawn.layout
    for text in (
        drawn.data[0].name,
        layout.title.text,
        layout.title.subtitle.text,
        layout.xaxis.title.text,
        layout.yaxis.title.text,
        layout.yaxis.ticktext[0],
    ):
        assert shown in text
        assert "<script" not in text
        assert "\x00" not in text


def test_a_page_holds_the_figure(everything, tmp_path) -> None:
    save(everything, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>Title</title>" in text
    assert "0.123457" in text
    assert 3e6 < len(text) < 8e6


def test_a_png(everything, tmp_path) -> None:
    save(everything, tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20]) == 1600  # the width in its header
    assert len(content) > 20_000


def test_an_svg_holds_its_labels_as_text(everything, tmp_path) -> None:
    panel = Panel(y=Axis(label="loss"), curves=(curve(NASTY, 1.0, 2.0), curve("_b", 2.0, 1.0)))
    save(figure(panel, title="Costs $5 or $6"), tmp_path / "nasty.svg")
    texts = written(tmp_path / "nasty.svg")
    assert {"<script>alert(1)</script> &", "$x_1$ %{x}", "_b", "Costs $5 or $6"} <= texts
    save(everything, tmp_path / "picture.svg")
    texts = written(tmp_path / "picture.svg")
    assert {"Title", "Under the title.", "accuracy", "cosine", "cyclic", "better"} <= texts
    assert {"base 1", "epoch", "1e-5", "1"} <= texts


def written(path) -> set[str]:
    return {"".join(each.itertext()) for each in ElementTree.parse(path).iter(f"{SVG}text")} | {
        each.text or "" for each in ElementTree.parse(path).iter(f"{SVG}tspan")
    }


def test_the_same_figure_gives_the_same_bytes(everything, tmp_path) -> None:
    for ending in ("svg", "png", "html"):
        for name in ("a", "b"):
            save(everything, tmp_path / f"{name}.{ending}")
        first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
        assert first == second


@pytest.mark.parametrize("name", ["picture.pdf", "picture", ".png", "picture.svg.gz"])
def test_another_ending_is_refused(everything, name, tmp_path) -> None:
    with pytest.raises(PlanError, match=r"must end in \.html, \.png or \.svg"):
        save(everything, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_ending_may_be_in_capitals(everything, tmp_path) -> None:
    save(everything, tmp_path / "PICTURE.SVG")
    assert "cosine" in written(tmp_path / "PICTURE.SVG")


def test_a_file_that_cannot_be_written(everything, tmp_path) -> None:
    with pytest.raises(PlanError, match=r"none.picture\.svg cannot be written: there is no folder"):
        save(everything, tmp_path / "none" / "picture.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(PlanError, match=r"folder\.svg is a folder: give a file name"):
        save(everything, tmp_path / "folder.svg")


def test_a_users_own_settings_change_nothing(everything, tmp_path) -> None:
    import matplotlib

    save(everything, tmp_path / "a.svg")
    with matplotlib.rc_context({"axes.labelsize": 30, "axes.facecolor": "red"}):
        save(everything, tmp_path / "b.svg")
        assert matplotlib.rcParams["axes.labelsize"] == 30
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_neither_library_is_imported_before_something_is_drawn() -> None:
    code = (
        "import sys, clrsearch.reports\n"
        "print({'matplotlib', 'plotly', 'torch'} & {name for name in sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.strip() == "set()"
