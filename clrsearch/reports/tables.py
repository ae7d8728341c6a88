"""Tables of studies and trials for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clrsearch.plots.figures import ScheduleCurve
from clrsearch.reports.terminal import one_line
from clrsearch.results import formatting
from clrsearch.results.conditioned import Variation
from clrsearch.results.confirmation import Confirmed
from clrsearch.results.horizon import Horizon
from clrsearch.results.snapshots import Snapshot
from clrsearch.search import Record, Standing
from clrsearch.tasks import Spacing, sign_of

MOST_ROWS = 40
MOST_BARS, BARS = 3, 48  # curves beside whose rates bars are drawn; their width in all


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without borders; the columns ``right`` are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def list_table(snapshots: Sequence[Snapshot]) -> RenderableType:
    """One row per study."""
    table = plain_table("study", "task", "trials", "metric", "recommended", right=("trials",))
    for each in snapshots:
        progress = f"{each.done}/{each.total}"
        table.add_row(each.name, each.task, progress, each.metric, _recommended(each))
    return table


def _recommended(now: Snapshot) -> str:
    """The recommended trial, with its mean on fresh seeds if there is a verdict."""
    record, verdict = now.recommended, now.verdict
    if record is None:
        return "none yet"
    trial = f"{record.family} (trial {record.number})"
    if verdict is None:
        return f"{trial}: {formatting.metrics(record, now.metric, now.spacing)}"
    standing = verdict.standing(record.number)
    return (
        f"{trial}: {now.metric} {formatting.number(standing.mean)} on "
        f"{formatting.seeds(len(standing.scores))}"
    )


def study_table(snapshot: Snapshot) -> RenderableType:
    """A summary line and a study's trials, best first."""
    progress = snapshot.spacing.progress
    table = plain_table("trial", "end", progress, snapshot.metric, "other metrics")
    table.add_column("parameters", no_wrap=True, overflow="ellipsis")
    sign = sign_of(snapshot.direction)
    order = ["complete", "running", "pruned", "failed"]

    def rank(record: Record) -> tuple[int, int, float]:
        value = record.value
        return (
            order.index(record.state),
            -record.epoch if record.state == "pruned" else 0,
            float("inf") if value is None else sign * value,
        )

    for record in sorted(snapshot.records, key=rank):
        table.add_row(
            str(record.number),
            record.end,
            str(record.epoch),
            "" if record.value is None else formatting.number(record.value),
            _other_metrics(record, snapshot.metric),
            formatting.params(record),
        )
    done = f"{snapshot.done} of {snapshot.total} trials done"
    head = f"{snapshot.name}: {done}, {formatting.ends(snapshot)}"
    return Group(Text(one_line(head)), Text(), table)


def trial_table(snapshot: Snapshot, record: Record, rates: Sequence[float]) -> RenderableType:
    """One trial: its parameters, and the metric and learning rate at each epoch's end."""
    spacing = snapshot.spacing
    lines = [
        f"{snapshot.name}, trial {record.number}: {record.end}, "
        f"{formatting.metrics(record, snapshot.metric, spacing)}",
        formatting.params(record),
        f"slot {record.slot}, {formatting.number(record.seconds)} s on {record.device}, "
        f"worker {record.worker}",
    ]
    by_epochs = spacing.validate_every is None
    place = ("epoch",) if by_epochs else ("validation", "step")
    at = "near" if spacing.in_steps else "at"  # the mean epoch's end, where they differ in length
    rate = f"learning rate {at} its end" if by_epochs else "learning rate there"
    table = plain_table(*place, rate, snapshot.metric, right=place)
    for number, value in sorted(record.values.items()):
        step = () if by_epochs else (str(spacing.ends[number - 1]),)
        at_its_end = formatting.number(rates[number - 1])
        table.add_row(str(number), *step, at_its_end, formatting.number(value))
    if record.drift:
        lines.append(
            f"{formatting.one(spacing.progress)} repeated after a worker was lost gave a different "
            f"result, by up to {formatting.number(record.drift)}"
        )
    error = [Text(), Text(record.error)] if record.error else []
    return Group(*(Text(one_line(line)) for line in lines), Text(), table, *error)


def preview_table(
    curves: Sequence[ScheduleCurve], spacing: Spacing, *, bars: bool
) -> RenderableType:
    """The learning rates and any momenta at the start of up to 40 epochs and at the last step.

    In a run whose length is told in steps, at up to 40 steps and at the last. With ``bars`` the
    rates of up to three curves are drawn as well, on one scale from 0.
    """
    unit, per = ("step", 1) if spacing.in_steps else ("epoch", spacing.steps_per_epoch)
    table = plain_table(unit, right=(unit,))
    drawn = bars and len(curves) <= MOST_BARS
    for each in curves:
        table.add_column(each.label)
        if drawn:
            table.add_column(width=BARS // len(curves))
    momenta = [(each.label, each.momenta) for each in curves if each.momenta is not None]
    for label, _ in momenta:
        table.add_column(f"{label}, momentum")
    top = max(float(each.rates.max()) for each in curves)
    horizon = len(curves[0].rates)
    apart = round(per * -(-horizon // (per * MOST_ROWS)))
    for step in (*range(0, horizon, apart), horizon - 1):
        place = str(step) if spacing.in_steps else formatting.number(step / per)
        row: list[RenderableType] = [place]
        for each in curves:
            rate = float(each.rates[step])
            row.append(formatting.number(rate))
            if drawn:
                row.append(Bar(top, 0, rate))
        row += [formatting.number(float(each[step])) for _, each in momenta]
        table.add_row(*row)
    return table


def result_table(snapshot: Snapshot) -> RenderableType:
    """The search best, the recommended trial if it is a different one, and the baseline."""
    table = plain_table("", "trial", snapshot.metric, "other metrics", "schedule", right=("trial",))
    rows = [
        ("search best", snapshot.search_best),
        ("recommended", snapshot.recommended),
        (f"search baseline ({snapshot.baseline_family})", snapshot.baseline),
    ]
    if snapshot.recommended == snapshot.search_best:
        rows = [("search best, recommended", snapshot.search_best), rows[-1]]
    for label, record in rows:
        if record is None:
            table.add_row(label, "", "none complete", "", "")
        else:
            table.add_row(
                label,
                str(record.number),
                formatting.number(record.value),
                _other_metrics(record, snapshot.metric),
                formatting.schedule_line(snapshot.schedules[record.number])
                + formatting.groups(record),
            )
    return table


def horizon_table(found: Horizon) -> RenderableType:
    """The best schedule of each length, and the epochs that a constant rate needs for its score."""
    table = plain_table(
        "epochs",
        found.metric,
        "95 % interval",
        "peak rate",
        "decay",
        "constant rate needs",
        right=("epochs",),
    )
    most = max(found.held, default=0)
    for each in found.lengths:
        table.add_row(
            str(each.epochs),
            formatting.number(each.mean),
            f"{formatting.number(each.low)} to {formatting.number(each.high)}",
            formatting.number(each.rate),
            f"{each.shape}, last {formatting.number(each.decay)} epochs",
            f"{each.held} epochs" if each.held else f"more than {most} epochs",
        )
    return table


def _other_metrics(record: Record, metric: str) -> str:
    return ", ".join(
        f"{name} {formatting.number(value)}"
        for name, value in record.metrics.items()
        if name != metric
    )


def confirmed_table(found: Confirmed, now: Snapshot) -> RenderableType:
    """Each finalist's mean on fresh seeds and its score in the search, and the verdict."""
    verdict = found.verdict
    if verdict is None:
        return Text(f"confirming on fresh seeds: {found.total - found.left} of {found.total} runs")
    seeds = max(len(each.scores) for each in verdict.standings)
    table = plain_table(
        *("", "trial", "family", f"{now.metric}, {formatting.seeds(seeds)}", "95 % interval", "p"),
        *("test split", "in the search"),
        right=("trial",),
    )
    for each in verdict.standings:
        interval = "" if each.low is None else f"{_short(each.low)} to {_short(each.high)}"
        table.add_row(
            formatting.marks(each, found),
            str(each.trial),
            each.family,
            f"{_short(each.mean)}{_on_fewer(each, seeds)}",
            interval,
            "" if each.p is None else f"{each.p:.2g}",
            _short(found.test.get(each.trial)),
            _short(each.searched),
        )
    unfinished = f" ({found.left} of {found.total} runs are left)" if found.left else ""
    absent = [Text(f"Not compared (no complete trial): {', '.join(found.absent)}.")]
    sentence = Text(" ".join(filter(None, (verdict.sentence, formatting.worth(now)))) + unfinished)
    return Group(table, Text(), sentence, *(absent if found.absent else ()))


def variation_table(found: Variation) -> RenderableType:
    """The schedules' means on fresh seeds under each condition, and in which ones they hold."""
    columns = [f"{each.family} (trial {each.number})" for each in found.schedules]
    table = plain_table(f"{found.metric} under", "seeds", *columns, right=("seeds",))
    for each in found.conditions:
        if each.verdict is None:
            why = "all diverged" if each.diverged else f"{each.left} runs are left"
            table.add_row(each.label, "", *([why] + [""] * len(columns))[: len(columns)])
            continue
        standings = [each.verdict.standing(record.number) for record in found.schedules]
        top = each.verdict.standings[0]
        seeds = str(max(len(standing.scores) for standing in standings))
        table.add_row(each.label, seeds, *(_interval(one, best=one == top) for one in standings))
    note = "Means and half-widths of their 95 % intervals; * marks the best."
    return Group(table, Text(), Text(f"{note} {found.sentence}"))


def _interval(standing: Standing, *, best: bool) -> str:
    """A mean, with half its interval if there is one."""
    if standing.diverged:
        return f"diverged on {standing.diverged}"
    half = "" if standing.low is None else f" +- {standing.mean - standing.low:.2g}"
    return f"{_short(standing.mean)}{half}{' *' if best else ''}"


def _on_fewer(standing: Standing, seeds: int) -> str:
    """Number of seeds a finalist diverged on, or has run with if others have run with more."""
    if standing.diverged:
        return f" (diverged on {standing.diverged})"
    return f" ({len(standing.scores)} of them)" if len(standing.scores) < seeds else ""


def _short(value: float | None) -> str:
    return "" if value is None else formatting.number(value)
