"""Figures of a whole search: every curve, the best so far, all parameters."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from records import make_record

from clrsearch.plots.overview import all_curves_figure, best_so_far_figure, parallel
from clrsearch.schedules import Choice, Parameter, Range

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ended(number: int, value: float, *, start: float, minutes: float, **changes):
    begun = NOON + timedelta(minutes=start)
    return make_record(
        value, number=number, started=begun, ended=begun + timedelta(minutes=minutes), **changes
    )


def best_so_far(records, by="trials", direction="minimize"):
    figure = best_so_far_figure(
        records, metric="loss", direction=direction, baseline="constant", by=by
    )
    return figure, {curve.label: curve for curve in figure.panels[0].curves}


def test_the_best_so_far_is_a_staircase_over_the_trials() -> None:
    records = [
        ended(0, 0.9, start=0, minutes=1, state="pruned"),
        ended(1, 0.5, start=1, minutes=1),
        ended(2, 0.7, start=2, minutes=1, family="constant"),
        ended(3, 0.4, start=3, minutes=1),
    ]
    figure, curves = best_so_far(records)
    best = curves["best so far"]
    assert list(zip(best.x, best.y, strict=True)) == [(2, 0.5), (4, 0.5), (4, 0.4), (4, 0.4)]
    baseline = curves["best baseline (constant)"]
    assert list(zip(baseline.x, baseline.y, strict=True)) == [(3, 0.7), (4, 0.7)]
    (points,) = figure.panels[0].points
    assert math.isnan(points.y[0])
    assert points.y[1:].tolist() == [0.5, 0.7, 0.4]


def test_the_clock_stands_while_no_trial_runs() -> None:
    records = [
        ended(0, 0.9, start=0, minutes=10),
        ended(1, 0.8, start=5, minutes=10),  # at the same time: 15 minutes in all
        ended(2, 0.7, start=1000, minutes=5),
    ]
    figure, curves = best_so_far(records, by="time")
    assert figure.x.label == "minutes in which trials ran"
    assert sorted(set(curves["best so far"].x)) == [10, 15, 20]
    figure, _ = best_so_far([ended(0, 0.9, start=0, minutes=0.1)], by="time")
    assert (figure.x.label, figure.x.high) == ("seconds in which trials ran", 6.0)
    figure, _ = best_so_far([ended(0, 0.9, start=0, minutes=600)], by="time")
    assert (figure.x.label, figure.x.high) == ("hours in which trials ran", 10.0)


def test_higher_is_better_where_it_is() -> None:
    records = [ended(n, v, start=n, minutes=1) for n, v in enumerate((0.5, 0.9, 0.7))]
    _, curves = best_so_far(records, direction="maximize")
    assert curves["best so far"].y.tolist() == [0.5, 0.5, 0.9, 0.9]


@pytest.mark.parametrize("by", ["time", "trials"])
def test_nothing_has_ended(by) -> None:
    figure, curves = best_so_far([make_record(0.5, state="running")], by=by)
    assert curves == {}
    assert figure.x.high == 1.0


def figure_of(records, recommended=None, ends=None):
    told = {"metric": "loss", "direction": "minimize", "epochs": 3}
    return all_curves_figure(records, **told, recommended=recommended, ends=ends)


def curves_of(records, recommended=None):
    return figure_of(records, recommended).panels[0]


def test_curves_differ_by_how_their_trials_ended_and_the_winner_is_on_top() -> None:
    records = [
        make_record(0.9, 0.5, 0.4, number=0),
        make_record(0.9, 0.6, 0.5, number=1),
        make_record(0.9, 0.8, number=2, state="pruned"),
        make_record(0.9, number=3, state="pruned", diverged=True),
        make_record(0.9, number=4, state="running"),
        make_record(number=5, state="running"),
    ]
    panel = curves_of(records, recommended=0)
    labels = [curve.label for curve in panel.curves]
    assert labels[-1] == "recommended"
    assert sorted(labels) == ["complete", "diverged", "pruned", "recommended", "running"]
    assert len({curve.style for curve in panel.curves}) == 5
    assert not panel.curves[-1].faint
    assert all(curve.faint for curve in panel.curves[:-1])
    marks = {points.label: points.x.tolist() for points in panel.points}
    assert marks == {"pruned": [2], "diverged": [1], "running": [1]}
    assert panel.curves[0].hint.startswith("trial 1: cyclic, complete, loss 0.5 after epoch 3")


def test_validations_between_epochs_lie_at_their_steps() -> None:
    records = [
        make_record(0.9, 0.5, 0.4, number=0),
        make_record(0.9, 0.8, number=1, state="pruned"),
    ]
    figure = figure_of(records, ends=(20, 40, 50))
    assert (figure.x.label, figure.x.low, figure.x.high) == ("steps", 0, 50)
    complete, pruned = figure.panels[0].curves
    assert (complete.x.tolist(), pruned.x.tolist()) == ([20, 40, 50], [20, 40])
    assert [points.x.tolist() for points in figure.panels[0].points] == [[40]]
    assert pruned.hint.endswith("loss 0.8 after 40 steps")


def test_no_curve_at_all() -> None:
    assert curves_of([]).curves == ()


SPACE = {
    "mode": Parameter(domain=Choice(options=("a", "b", "c"))),
    "max_lr": Parameter(domain=Range(low=1e-3, high=1e1, log=True)),
    "gamma": Parameter(domain=Range(low=0.0, high=1.0), when=("mode", "c")),
    "fixed": Parameter(domain=Range(low=2.0, high=2.0)),
}


def test_parameters_lie_between_the_ends_of_their_ranges() -> None:
    records = [
        make_record(0.2, number=0, params={"mode": "b", "max_lr": 1e-1, "fixed": 2.0}),
        make_record(0.6, number=1, params={"mode": "c", "max_lr": 10.0, "gamma": 0.25}),
        make_record(0.4, number=2, params={"mode": "a", "max_lr": 1e-3}),
        make_record(0.1, number=3, state="pruned", params={"mode": "a", "max_lr": 1e-3}),
        make_record(0.1, number=4, family="constant", params={"lr": 1e-3}),
    ]
    found = parallel(
        records, SPACE, family="cyclic", metric="loss", direction="minimize", recommended=2
    )
    assert [axis.label for axis in found.axes] == ["mode", "max_lr", "gamma", "loss"]
    assert found.axes[0].ticks == ((0.0, "a"), (0.5, "b"), (1.0, "c"))
    assert found.axes[1].ticks == ((0.0, "0.001"), (1.0, "10"))
    assert found.axes[3].ticks == ((1.0, "0.2"), (0.0, "0.6"))  # the lower is on top
    by_trial = {line.hint.split(":")[0]: line for line in found.lines}
    assert by_trial["trial 0"].places == (0.5, pytest.approx(0.5), None, 1.0)
    assert by_trial["trial 1"].places == (1.0, pytest.approx(1.0), 0.25, 0.0)
    assert by_trial["trial 2"].places == (0.0, 0.0, None, pytest.approx(0.5))
    assert [line.rank for line in found.lines] == ["best", "best", "recommended"]
