"""What the figures show: thinned curves, axes, marks and the order of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clrsearch.plots.figures import (
    FinalistScores,
    LearningCurve,
    RangeTestCurves,
    ScheduleCurve,
    learning_curves_figure,
    range_test_figure,
    schedules_figure,
    scores_figure,
    thinned,
)


def scheduled(label: str, *rates: float, momenta=None) -> ScheduleCurve:
    return ScheduleCurve(label=label, rates=np.array(rates), momenta=momenta)


def range_test(*, base=None, maximum=None, **changes) -> RangeTestCurves:
    given = {
        "rates": np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        "training": np.array([[2.1, 2.0, 1.0, 0.5, 1e12], [1.9, 2.0, 1.2, 0.7, math.nan]]),
        "validation": np.array([[2.2, 2.0, 1.1, 0.9, math.inf], [2.0, 2.2, 1.3, 0.9, math.nan]]),
        "smoothed_training": np.array([2.0, 2.0, 1.1, 0.6, 1e12]),
        "smoothed_validation": np.array([2.1, 2.1, 1.2, 0.9, math.nan]),
        "base": base,
        "maximum": maximum,
        "sentence": "What the test found.",
    }
    return RangeTestCurves(**(given | changes))


def finalist(label: str, *scores: float, mean: float, chosen: bool = False, **changes):
    given = {"low": mean - 0.1, "high": mean + 0.1, "searched": mean}
    return FinalistScores(label=label, scores=scores, mean=mean, chosen=chosen, **(given | changes))


def test_few_points_are_all_kept() -> None:
    assert thinned(np.array([3.0, 1.0, 1.0, 1.0]), most=4).tolist() == [0, 1, 2, 3]


def test_straight_pieces_keep_their_ends_alone() -> None:
    stairs = np.repeat([1.0, 0.1, 0.01], [30_000, 30_000, 18_200])
    assert thinned(stairs).tolist() == [0, 29_999, 30_000, 59_999, 60_000, 78_199]
    zigzag = np.abs(np.arange(78_201.0) % 20_000 - 10_000)  # troughs at 10,000, 30,000, ...
    assert thinned(zigzag).tolist() == [*range(0, 78_201, 10_000), 78_200]


@pytest.mark.parametrize(
    "y",
    [
        np.cos(np.arange(78_200) / 78_200 * math.pi),
        1 + 1e-4 * np.cos(np.arange(78_200) / 78_200 * math.pi),  # straight, but for rounding
        np.cos(np.arange(78_200) / 911),
        np.random.default_rng(0).normal(size=78_200),
    ],
    ids=["half a cosine", "a faint bow", "many cosines", "noise"],
)
def test_a_bent_curve_is_bounded_and_keeps_its_extremes(y) -> None:
    kept = thinned(y)
    assert 500 < len(kept) <= 2000
    assert (kept[0], kept[-1]) == (0, 78_199)
    assert (np.diff(kept) > 0).all()
    assert np.isin([y.argmin(), y.argmax()], kept).all()
    for start in range(0, 78_200, 1000):  # and those of every stretch that a reader would see
        inside = kept[(kept >= start - 200) & (kept < start + 1200)]
        assert y[inside].max() >= y[start : start + 1000].max()
        assert y[inside].min() <= y[start : start + 1000].min()


def test_a_jump_between_bends_stays_a_jump() -> None:
    restarts = 0.5 + 0.5 * np.cos(np.arange(60_000) % 20_000 / 20_000 * math.pi)
    kept = thinned(restarts)
    assert np.isin([19_999, 20_000, 39_999, 40_000], kept).all()


def test_schedules_over_epochs() -> None:
    momenta = np.array([0.95, 0.9, 0.85, 0.9])
    figure = schedules_figure(
        [scheduled("a", 0.1, 0.2, 0.3, 0.2, momenta=momenta), scheduled("b", 0.4, 0.3, 0.2, 0.0)],
        steps_per_epoch=2,
    )
    above, below = figure.panels
    assert above.curves[0].x.tolist() == [0, 0.5, 1, 1.5]
    assert above.curves[1].y.tolist() == [0.4, 0.3, 0.2, 0.0]
    assert [curve.label for curve in below.curves] == ["a"]
    assert below.curves[0].style == above.curves[0].style != above.curves[1].style
    assert not above.y.log
    assert figure.subtitle == ""
    assert "2 steps" in figure.x.label


def test_a_schedule_over_steps() -> None:
    figure = schedules_figure([scheduled("a", 0.1, 0.2, 0.3)], steps_per_epoch=None)
    assert figure.panels[0].curves[0].x.tolist() == [0, 1, 2]
    assert (figure.x.label, figure.x.high) == ("steps", 3)


def test_no_schedule_sets_a_momentum() -> None:
    figure = schedules_figure([scheduled("a", 0.1, 0.2)], steps_per_epoch=1)
    assert len(figure.panels) == 1


def test_a_zero_rate_lies_on_the_edge_of_a_logarithmic_axis() -> None:
    figure = schedules_figure(
        [scheduled("high", 0.0, 10.0, 1.0, 0.0), scheduled("low", 0.1, 0.1, 0.1, 1e-9)],
        steps_per_epoch=1,
    )
    axis = figure.panels[0].y
    assert axis.log
    assert axis.low == pytest.approx(0.1 / 1000 / 1.25)
    assert figure.panels[0].curves[0].y.tolist() == [axis.low, 10.0, 1.0, axis.low]
    assert figure.panels[0].curves[1].y.tolist() == [0.1, 0.1, 0.1, axis.low]
    assert figure.subtitle == "Rates below 8e-05 are drawn at the lower edge."


def test_what_is_straight_on_a_linear_axis_is_thinned_as_it_bends_on_a_logarithmic_one() -> None:
    line = np.linspace(1.0, 0.0, 50_000)
    alone = schedules_figure([scheduled("a", *line)], steps_per_epoch=1)
    assert len(alone.panels[0].curves[0].x) == 2
    both = schedules_figure([scheduled("a", *line), scheduled("b", 0.01)], steps_per_epoch=1)
    curve = both.panels[0].curves[0]
    assert 500 < len(curve.x) <= 2000
    assert np.interp(25_000, curve.x, curve.y) == pytest.approx(0.5, rel=1e-3)


def test_the_divergence_does_not_set_the_axis_of_a_range_test() -> None:
    figure = range_test_figure(range_test())
    (panel,) = figure.panels
    assert panel.y.low < 0.5
    assert 2.2 < panel.y.high < 3.0
    assert panel.curves[0].y[:4].tolist() == [2.1, 2.0, 1.0, 0.5]
    assert panel.y.high < panel.curves[0].y[4] < 10
    assert math.isnan(panel.curves[1].y[4])
    assert [curve.faint for curve in panel.curves] == [True] * 4 + [False] * 2
    assert figure.x.log
    assert (figure.x.low, figure.x.high) == (1e-4, 1.0)


def test_the_proposed_rates_are_marked() -> None:
    marks = range_test_figure(range_test(base=0.00123456, maximum=0.1)).panels[0].marks
    assert [(mark.label, mark.x) for mark in marks] == [
        ("base 0.00123", 0.00123456),
        ("max 0.1", 0.1),
    ]
    figure = range_test_figure(range_test())
    assert figure.panels[0].marks == ()
    assert figure.subtitle == "What the test found."


def test_a_range_test_without_a_finite_loss() -> None:
    nothing = np.full((2, 5), math.nan)
    figure = range_test_figure(
        range_test(
            training=nothing,
            validation=nothing,
            smoothed_training=nothing[0],
            smoothed_validation=nothing[0],
        )
    )
    assert figure.panels[0].y.high is None


def test_a_mean_ends_where_its_first_seed_does() -> None:
    values = np.array([[0.1, 0.5, 0.7, 0.8], [0.3, 0.7, math.inf, math.nan], [math.nan] * 4])
    figure = learning_curves_figure(
        [LearningCurve(label="a", values=values, rates=np.array([0.1, 0.2, 0.1, 0.0]))],
        metric="accuracy",
        steps_per_epoch=1,
    )
    above, below = figure.panels
    assert above.curves[0].x.tolist() == [1, 2]
    assert above.curves[0].y == pytest.approx([0.2, 0.6])  # the third seed has not begun
    assert above.bands[0].low.tolist() == [0.1, 0.5, 0.7, 0.8]
    assert above.bands[0].high.tolist() == [0.3, 0.7, 0.7, 0.8]
    assert below.curves[0].y.tolist() == [0.1, 0.2, 0.1, 0.0]
    assert above.curves[0].style == above.bands[0].style == below.curves[0].style
    assert "ends where its first seed does" in figure.subtitle
    assert above.y.label == "validation accuracy"


@pytest.mark.parametrize("epochs", [2, 40])
def test_a_peak_within_an_epoch_is_drawn_below_the_learning_curves(epochs) -> None:
    triangle = np.interp(np.arange(400.0), [0, 137, 400], [0.01, 0.3, 0.01])  # 1 peak per epoch
    figure = learning_curves_figure(
        [
            LearningCurve(
                label="a", values=np.full((1, epochs), 0.5), rates=np.tile(triangle, epochs)
            )
        ],
        metric="loss",
        steps_per_epoch=400,
    )
    above, below = figure.panels
    (rates,) = below.curves
    assert rates.x[rates.y == 0.3] == pytest.approx([137 / 400 + n for n in range(epochs)])
    assert (rates.x[0], rates.y[0]) == (0.0, 0.01)
    assert (figure.x.low, figure.x.high) == (0, epochs)
    assert above.curves[0].x[-1] == epochs


def test_validations_between_epochs_lie_at_their_steps() -> None:
    values = np.array([[0.5, 0.4, 0.3], [0.7, 0.6, math.nan]])
    figure = learning_curves_figure(
        [LearningCurve(label="a", values=values, rates=np.full(50, 0.1))],
        metric="loss",
        steps_per_epoch=50 / 3,
        ends=(20, 40, 50),
    )
    above, below = figure.panels
    assert above.curves[0].x.tolist() == [20, 40]
    assert above.bands[0].x.tolist() == [20, 40, 50]
    assert below.curves[0].x.tolist() == list(range(50))
    assert (figure.x.label, figure.x.high) == ("steps", 50)


def test_one_seed_has_no_band_and_gaps_between_validations_are_bridged() -> None:
    values = np.array([[math.nan, 0.5, math.nan, 0.7]])
    figure = learning_curves_figure(
        [LearningCurve(label="a", values=values, rates=np.full(4, 0.1))],
        metric="loss",
        steps_per_epoch=1,
    )
    assert figure.panels[0].bands == ()
    assert figure.panels[0].curves[0].x.tolist() == [2, 4]
    assert figure.subtitle == ""


def test_neither_first_epochs_nor_outliers_squeeze_the_learning_curves() -> None:
    late = [0.95, 0.951, 0.952, 0.953, 0.954, 0.955, 0.956, 0.957]
    values = np.array([[0.1, 0.6, *late], [0.2, 0.7, *late[:-1], 1e30]])
    curves = [
        LearningCurve(label="a", values=values, rates=np.full(10, 0.1)),
        LearningCurve(label="poor", values=np.full((2, 10), 0.8), rates=np.full(10, 0.1)),
    ]
    axis = learning_curves_figure(curves, metric="accuracy", steps_per_epoch=1).panels[0].y
    assert 0.7 < axis.low < 0.8
    assert 0.957 < axis.high < 1.1


def test_the_first_fifth_of_the_epochs_may_leave_the_axis() -> None:
    rising = LearningCurve(
        label="a", values=np.array([[0.1, 0.6, 0.7, 0.8, 0.9]]), rates=np.full(5, 0.1)
    )
    panel = learning_curves_figure([rising], metric="accuracy", steps_per_epoch=1).panels[0]
    (curve,) = panel.curves
    assert 0.5 < panel.y.low < 0.6
    assert curve.y.tolist()[1:] == [0.6, 0.7, 0.8, 0.9]
    assert curve.y[0] < panel.y.low


def test_the_best_mean_is_the_highest_row() -> None:
    finalists = [
        finalist("cyclic", 0.4, 0.6, mean=0.5),
        finalist("cosine", 0.2, 0.4, mean=0.3, searched=0.25, chosen=True),
        finalist("step", mean=math.nan, low=None, high=None, searched=0.9),
    ]
    figure = scores_figure(finalists, metric="loss", direction="minimize")
    (panel,) = figure.panels
    assert panel.y.names == ("step", "cyclic", "cosine, recommended")
    assert figure.x.label == "loss (lower is better)"
    assert [(curve.label, curve.x[:2].tolist(), curve.y[0]) for curve in panel.curves] == [
        ("mean and 95 % interval", [0.4, 0.6], 1),
        ("recommended: mean and 95 % interval", [pytest.approx(0.2), 0.4], 2),
    ]
    points = {each.label: each for each in panel.points}
    assert points["one fresh seed"].x.tolist() == [0.4, 0.6, 0.2, 0.4]
    assert points["score in the search"].x.tolist() == [0.9, 0.5, 0.25]
    assert points["score in the search"].y.round().tolist() == [0, 1, 2]
    assert points["recommended: mean and 95 % interval"].x.tolist() == [0.3]
    upward = scores_figure(finalists, metric="accuracy", direction="maximize")
    assert upward.panels[0].y.names == ("step", "cosine, recommended", "cyclic")


def test_one_seed_has_no_interval() -> None:
    figure = scores_figure(
        [finalist("cosine", 0.3, mean=0.3, low=None, high=None, searched=0.4, chosen=True)],
        metric="loss",
        direction="minimize",
    )
    assert figure.panels[0].curves == ()
    assert figure.panels[0].points[0].label == "recommended: mean"
    assert figure.x.low < 0.3 < 0.4 < figure.x.high
