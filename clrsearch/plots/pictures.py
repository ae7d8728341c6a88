"""Build figures from the records, traces and range tests of studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from clrsearch.errors import StudyError
from clrsearch.plots import figures
from clrsearch.plots.figure import Axis, Band, Curve, Figure, Panel, Points
from clrsearch.plots.overview import all_curves_figure, best_so_far_figure
from clrsearch.results.formatting import one
from clrsearch.results.horizon import Horizon
from clrsearch.results.snapshots import Snapshot
from clrsearch.search import RangeTest, Record, Study, Verdict, padded, smoothed
from clrsearch.tasks import Spacing


def picture_of_range_test(test: RangeTest) -> Figure:
    """The losses of a range test over the learning rate, and the proposed bounds."""
    points = len(test.rates)
    return figures.range_test_figure(
        figures.RangeTestCurves(
            rates=np.array(test.rates),
            training=padded(test.training, points, np.nan),
            validation=padded(test.validation, points, np.nan),
            smoothed_training=smoothed(test.training, points),
            smoothed_validation=smoothed(test.validation, points),
            base=test.base,
            maximum=test.maximum,
            sentence=test.sentence,
        )
    )


def picture_of_scores(study: Study, verdict: Verdict) -> Figure:
    """Each finalist's scores on fresh seeds, with its score in the search."""
    return figures.scores_figure(
        [
            figures.FinalistScores(
                label=f"{each.family} (trial {each.trial})",
                scores=tuple(each.scores.values()),
                mean=each.mean,
                low=each.low,
                high=each.high,
                searched=each.searched,
                chosen=each.trial == verdict.chosen,
            )
            for each in verdict.standings
        ],
        metric=study.facts.metric,
        direction=study.facts.direction,
    )


def picture_of_schedules(study: Study, trials: Sequence[Record]) -> Figure:
    """The learning rates and momenta of trials; with a single trial, of each parameter group."""
    facts = study.facts
    groups = facts.groups if len(trials) == 1 else facts.groups[:1]
    curves = []
    for record in trials:
        played = study.trace(record.family, record.params)
        for index, group in enumerate(groups):
            label = f"{record.family} (trial {record.number})"
            curves.append(
                figures.ScheduleCurve(
                    label=f"{label}, {group}" if groups[1:] else label,
                    rates=played.rates[index],
                    momenta=None if played.momenta is None else played.momenta[index],
                )
            )
    each = None if facts.in_steps else facts.steps_per_epoch
    return figures.schedules_figure(curves, steps_per_epoch=each)


def picture_of_trials(study: Study, trials: Sequence[Record]) -> Figure:
    """The learning curves of trials, with their learning rates below."""
    facts = study.facts
    return figures.learning_curves_figure(
        [
            figures.LearningCurve(
                label=f"{record.family} (trial {record.number})",
                values=np.array(
                    [[record.values.get(e, np.nan) for e in range(1, facts.intervals + 1)]]
                ),
                rates=study.trace(record.family, record.params).rates[0],
            )
            for record in trials
        ],
        metric=facts.metric,
        steps_per_epoch=facts.steps_per_epoch,
        ends=_ends(facts),
    )


def picture_of_curves(study: Study, runs: Sequence[Record]) -> Figure:
    """The finalists' learning curves over fresh seeds, with their learning rates below.

    Raises:
        StudyError: no run has finished an epoch.
    """
    facts = study.facts
    by_finalist: dict[int, list[Record]] = {}
    for run in runs:
        if run.finalist is not None and run.values:
            by_finalist.setdefault(run.finalist, []).append(run)
    if not by_finalist:
        raise StudyError(
            f"no run of {study.name} on a fresh seed has finished {one(facts.progress)} yet"
        )
    curves = []
    for finalist, of_it in sorted(by_finalist.items()):
        first = of_it[0]
        values = [
            [run.values.get(e, np.nan) for e in range(1, facts.intervals + 1)] for run in of_it
        ]
        curves.append(
            figures.LearningCurve(
                label=f"{first.family} (trial {finalist})",
                values=np.array(values),
                rates=study.trace(first.family, first.params).rates[0],
            )
        )
    return figures.learning_curves_figure(
        curves, metric=facts.metric, steps_per_epoch=facts.steps_per_epoch, ends=_ends(facts)
    )


def picture_of_search(now: Snapshot) -> Figure:
    """The learning curves of all trials, with the recommended one on top."""
    use = now.recommended
    return all_curves_figure(
        now.records,
        metric=now.metric,
        direction=now.direction,
        epochs=now.spacing.intervals,
        ends=_ends(now.spacing),
        recommended=None if use is None else use.number,
    )


def picture_of_horizon(found: Horizon) -> Figure:
    """The score of the best schedule of each length, and of the best constant rate by epoch."""
    lengths = np.array([float(each.epochs) for each in found.lengths])
    means = np.array([each.mean for each in found.lengths])
    low, high = (
        np.array([getattr(each, end) for each in found.lengths]) for end in ("low", "high")
    )
    epochs = [epoch for epoch in found.held if not len(lengths) or epoch >= lengths[0]]
    held = np.array([found.held[epoch] for epoch in epochs])
    label = "best schedule of each length, 95 % interval"
    return Figure(
        title=f"{found.metric} by length",
        subtitle="each length with a decay of its own",
        x=Axis(label="epochs", whole=True),
        panels=(
            Panel(
                y=figures.axis_around(found.metric, [*low, *high, *held]),
                curves=(
                    Curve(label=label, x=lengths, y=means, style=figures.FIRST),
                    Curve(
                        label="best constant rate",
                        x=np.array(epochs, dtype=float),
                        y=held,
                        style=figures.OTHER,
                    ),
                ),
                bands=(Band(label=label, x=lengths, low=low, high=high, style=figures.FIRST),),
                points=(
                    Points(label=label, x=lengths, y=means, style=figures.FIRST, marker="disc"),
                ),
            ),
        ),
    )


def _ends(spacing: Spacing) -> tuple[int, ...] | None:
    """The steps at which a run is validated; None if it is so at the epochs' ends."""
    return None if spacing.validate_every is None else spacing.ends


def picture_of_progress(now: Snapshot, *, by: Literal["trials", "time"]) -> Figure:
    """The best score so far, over ended trials or over time."""
    return best_so_far_figure(
        now.records,
        metric=now.metric,
        direction=now.direction,
        baseline=now.baseline_family,
        by=by,
    )
