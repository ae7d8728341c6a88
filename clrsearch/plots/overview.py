"""Figures of a whole search: all learning curves, the best score so far, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from clrsearch.plots.figure import Axis, Curve, Figure, Marker, Panel, Points
from clrsearch.plots.figures import axis_around, ends_within, inside, late_axis
from clrsearch.results import formatting
from clrsearch.schedules import Choice, Range, Space, Value
from clrsearch.search import Record
from clrsearch.tasks import Direction, sign_of

BEST, OTHERS, RUNNING, PRUNED, DIVERGED = 0, 1, 2, 3, 6
"""Styles, each a colour and a line style."""
DRAWN: Mapping[str, tuple[int, Marker]] = {
    "complete": (OTHERS, "dot"),
    "pruned": (PRUNED, "dot"),
    "diverged": (DIVERGED, "diamond"),
    "failed": (DIVERGED, "diamond"),
    "running": (RUNNING, "dot"),
}
"""Style and end marker of learning curves by outcome; complete trials get no marker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """An axis of parallel coordinates; ``ticks`` are positions from 0 to 1 with their labels."""

    label: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A trial in parallel coordinates: a position from 0 to 1 per axis, None for no value."""

    places: tuple[float | None, ...]
    hint: str
    rank: str  # recommended, best or other


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """A family's complete trials in parallel coordinates; the last axis is the score."""

    family: str
    axes: tuple[Upright, ...]
    lines: tuple[Line, ...]


def all_curves_figure(
    records: Sequence[Record],
    *,
    metric: str,
    direction: Direction,
    epochs: int,
    recommended: int | None,
    ends: Sequence[int] | None = None,
) -> Figure:
    """Plot the learning curves of all trials by outcome, with the recommended one on top.

    They are over epochs or, if ``ends`` has the steps after which the metric was measured, steps.
    """
    places = range(1, epochs + 1) if ends is None else ends
    begun = [record for record in records if record.values]
    tables = [_row(record, epochs) for record in begun if record.state == "complete"]
    tables = tables or [_row(record, epochs) for record in begun]
    axis = late_axis(f"validation {metric}", [np.vstack(tables)] if tables else [])
    curves = []
    for record in sorted(begun, key=lambda each: (each.number == recommended, -each.epoch)):
        stands_out = record.number == recommended
        label = "recommended" if stands_out else record.end
        curves.append(
            Curve(
                label=label,
                x=np.array([places[each - 1] for each in record.values], dtype=np.float64),
                y=inside(axis, np.array(list(record.values.values()), dtype=np.float64)),
                style=BEST if stands_out else DRAWN[record.end][0],
                faint=not stands_out,
                hint=f"trial {record.number}: {record.family}, {record.end}, "
                f"{metric} {formatting.number(record.value)} after "
                + (f"epoch {record.epoch}" if ends is None else f"{ends[record.epoch - 1]} steps"),
            )
        )
    return Figure(
        title="Learning curves of all trials",
        subtitle=_better(direction),
        x=Axis(label="epoch", low=0.5, high=epochs + 0.5, whole=True)
        if ends is None
        else Axis(label="steps", low=0.0, high=float(ends[-1]), whole=True),
        panels=(
            Panel(
                y=axis, curves=tuple(curves), points=_last_points(begun, recommended, places, axis)
            ),
        ),
    )


def best_so_far_figure(
    records: Sequence[Record], *, metric: str, direction: Direction, baseline: str, by: str
) -> Figure:
    """Plot the best score so far, and the baseline's, over ended trials or over time.

    ``by`` is ``trials`` or ``time``. Time counts only while at least one trial runs, and is given
    in the largest unit of which there are at least three.
    """
    ended = sorted(
        (record for record in records if record.ended is not None),
        key=lambda record: (record.ended, record.number),
    )
    x, label = _clock(records, ended) if by == "time" else (_count(ended), "trials that have ended")
    scores = np.array([_score(record) for record in ended])
    of_baseline = np.array(
        [_score(record) if record.family == baseline else math.nan for record in ended]
    )
    best, best_baseline = (_running_best(each, direction) for each in (scores, of_baseline))
    axis = axis_around(metric, [*ends_within(scores), *ends_within(best)])
    drawn = ((f"best baseline ({baseline})", best_baseline, RUNNING), ("best so far", best, BEST))
    return Figure(
        title=f"Best so far against {by}",
        subtitle=_better(direction),
        x=Axis(label=label, low=0.0, high=float(x[-1]) if len(x) else 1.0, whole=by == "trials"),
        panels=(
            Panel(
                y=axis,
                curves=tuple(
                    Curve(label=name, x=steps, y=inside(axis, values), style=style)
                    for name, found, style in drawn
                    for steps, values in (_stairs(x, found),)
                    if len(steps)
                ),
                points=(
                    Points(
                        label="complete trial",
                        x=x,
                        y=inside(axis, scores),
                        style=OTHERS,
                        marker="dot",
                    ),
                ),
            ),
        ),
    )


def parallel(
    records: Sequence[Record],
    space: Space,
    *,
    family: str,
    metric: str,
    direction: Direction,
    recommended: int | None,
) -> Parallel:
    """A family's complete trials in parallel coordinates.

    The best tenth (at least three) and the recommended trial are highlighted. The better end of the
    score axis is at the top; outliers are clipped to its ends.
    """
    complete = [r for r in records if r.family == family and r.state == "complete"]
    searched = {name: p.domain for name, p in space.items() if _is_searched(p.domain)}
    scores = np.array([_score(record) for record in complete])
    low, high = _ends(scores)
    sign = -sign_of(direction)
    best = np.sort(-sign * scores)[: max(len(scores) // 10, 3)]
    lines = []
    for record, score in zip(complete, scores, strict=True):
        height = _place(float(np.clip(score, low, high)), Range(low=low, high=high))
        rank = "best" if -sign * score <= best[-1] else "other"
        lines.append(
            Line(
                places=(
                    *(
                        _place(record.params[name], domain) if name in record.params else None
                        for name, domain in searched.items()
                    ),
                    height if sign > 0 else 1.0 - height,
                ),
                hint=f"trial {record.number}: {metric} {formatting.number(record.value)}, "
                f"{formatting.params(record)}",
                rank="recommended" if record.number == recommended else rank,
            )
        )
    order = {"other": 0, "best": 1, "recommended": 2}
    ends = ((0.0, formatting.number(low)), (1.0, formatting.number(high)))
    turned = tuple((1.0 - place, text) for place, text in ends)
    return Parallel(
        family=family,
        axes=(
            *(Upright(label=name, ticks=_ticks(domain)) for name, domain in searched.items()),
            Upright(label=metric, ticks=ends if sign > 0 else turned),
        ),
        lines=tuple(sorted(lines, key=lambda line: order[line.rank])),
    )


def _better(direction: Direction) -> str:
    return f"{'Lower' if direction == 'minimize' else 'Higher'} is better."


def _row(record: Record, epochs: int) -> np.ndarray:
    return np.array([[record.values.get(epoch, math.nan) for epoch in range(1, epochs + 1)]])


def _last_points(
    begun: Sequence[Record], recommended: int | None, places: Sequence[int], axis: Axis
) -> tuple[Points, ...]:
    """Markers at the ends of curves that did not complete, by outcome."""
    found = []
    for end, (style, marker) in DRAWN.items():
        ended = [r for r in begun if r.end == end and end != "complete" and r.number != recommended]
        if ended:
            found.append(
                Points(
                    label=end,
                    x=np.array([places[each.epoch - 1] for each in ended], dtype=np.float64),
                    y=inside(axis, np.array([record.value for record in ended], dtype=np.float64)),
                    style=style,
                    marker=marker,
                )
            )
    return tuple(found)


def _score(record: Record) -> float:
    return math.nan if record.state != "complete" or record.value is None else record.value


def _count(ended: Sequence[Record]) -> np.ndarray:
    return np.arange(1.0, len(ended) + 1)


def _clock(records: Sequence[Record], ended: Sequence[Record]) -> tuple[np.ndarray, str]:
    """End times of trials on a clock that stops while no trial runs, and the axis label."""
    ends = [record.ended for record in ended if record.ended is not None]
    spans: list[tuple[datetime, datetime]] = []
    for start, end in sorted((r.started, r.ended) for r in records if r.ended is not None):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    seconds, before, index = [], 0.0, 0
    for end in ends:
        while end > spans[index][1]:
            before += (spans[index][1] - spans[index][0]).total_seconds()
            index += 1
        seconds.append(before + (end - spans[index][0]).total_seconds())
    last = seconds[-1] if seconds else 0.0
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, length = next(each for each in units if last >= 3 * each[1] or each[1] == 1)
    return np.array(seconds) / length, f"{unit} in which trials ran"


def _running_best(scores: np.ndarray, direction: Direction) -> np.ndarray:
    best = np.fmin if direction == "minimize" else np.fmax
    return np.asarray(best.accumulate(scores))


def _stairs(x: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a step curve that holds each value until the next change."""
    known = np.flatnonzero(np.isfinite(best))
    if not len(known):
        return np.array([]), np.array([])
    corners = [(x[known[0]], best[known[0]])]
    for before, after in pairwise(known):
        if best[after] != best[before]:
            corners += [(x[after], best[before]), (x[after], best[after])]
    corners.append((x[-1], best[known[-1]]))
    table = np.array(corners)
    return table[:, 0], table[:, 1]


def _is_searched(domain: Range | Choice) -> bool:
    return len(domain.options) > 1 if isinstance(domain, Choice) else domain.low < domain.high


def _ends(scores: np.ndarray) -> tuple[float, float]:
    ends = ends_within(scores)
    low, high = (ends[0], ends[1]) if ends else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _place(value: Value, domain: Range | Choice) -> float:
    """Position of a value in its range, from 0 to 1; choices are equally spaced."""
    if isinstance(domain, Choice):
        assert isinstance(value, str | bool)
        return domain.options.index(value) / (len(domain.options) - 1)
    assert not isinstance(value, str)
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _ticks(domain: Range | Choice) -> tuple[tuple[float, str], ...]:
    if isinstance(domain, Choice):
        return tuple((_place(option, domain), str(option)) for option in domain.options)
    ends = (int(domain.low), int(domain.high)) if domain.integer else (domain.low, domain.high)
    return tuple((float(place), formatting.number(end)) for place, end in enumerate(ends))
