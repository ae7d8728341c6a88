"""The status of a study on the terminal: once, or as a live view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from clrsearch import proposals
from clrsearch.reports.live import COLOURS, Redrawn
from clrsearch.reports.tables import plain_table
from clrsearch.reports.terminal import one_line
from clrsearch.results import formatting
from clrsearch.results.snapshots import ENDS
from clrsearch.results.status import FEWEST, Failure, Status
from clrsearch.storage import SlotState

NAMED = 5  # trials listed per cause of failure in the table


def status_table(status: Status) -> RenderableType:
    """The status for a terminal; the least important parts come last, as they may be cut off."""
    done = f"  {status.done} of {status.done + status.left} trials done"
    parts: list[RenderableType] = [
        Text.assemble((one_line(status.name), "bold"), done),
        _counts(status),
    ]
    outlook = _outlook(status)
    if outlook:
        parts.append(Text(outlook))
    if status.budget:
        parts.append(Text(f"Budget: {status.budget}."))
    if status.packing:
        parts.append(Text(f"{status.packing[0].upper()}{status.packing[1:]}."))
    if status.stopped:
        parts.append(Text("Stopped: the task failed repeatedly.", style="red"))
    if status.holders:
        parts += [Text(), _holders(status)]
    if status.failures:
        parts += [Text(), _failures(status.failures)]
    if status.departures:
        parts += [Text(), _departures(status.departures)]
    return Group(*parts)


def status_advice(status: Status) -> list[str]:
    """What the user has to do for the study to continue, as lines that must not be wrapped."""
    name, trial = status.name, status.stopped_by
    if status.stopped:
        retry = f"{proposals.command('retry', name)} retries the failed trials."
        why = [] if trial is None else [f"{proposals.command('show', name, trial)} shows why."]
        return [*why, retry]
    if status.left and status.ended:
        return [
            "Its time is over: the command that granted it resumes it and grants as much again."
        ]
    if status.left and not status.live:
        worker = proposals.command("worker", name)
        return [f"Unless a worker is just starting, {worker} resumes it."]
    return []


def _counts(status: Status) -> Text:
    states = [*ENDS, SlotState.CLAIMED, SlotState.OPEN]
    if status.slots.get(SlotState.CANCELLED, 0):
        states.append(SlotState.CANCELLED)
    counts = [(state, status.slots.get(state, 0)) for state in states]
    return Text("  ").join(
        Text(f"{count} {state}", style=COLOURS.get(state, "") if count else "dim")
        for state, count in counts
    )


def _holders(status: Status) -> RenderableType:
    """One row per claim, live workers first."""
    table = plain_table()
    table.add_column("host", overflow="ellipsis")  # shortened first if space is tight
    progress = status.spacing.progress
    for column in ("pid", "device", "trial", progress, status.metric, "renewed"):
        right = column in ("pid", "trial", progress)
        table.add_column(Text(column), justify="right" if right else "left", no_wrap=True)
    for holder in sorted(status.holders, key=lambda holder: holder.silent):
        heard = _time(round(holder.age))
        silent = f"silent for {heard}" if holder.age > 0 else "silent"  # the clock was set back
        table.add_row(
            Text(holder.host),
            "" if holder.pid is None else str(holder.pid),
            Text(holder.device or ""),
            "" if holder.trial is None else str(holder.trial),
            f"{holder.epoch}/{status.spacing.intervals}",
            "" if holder.value is None else formatting.number(holder.value),
            Text(silent, style="yellow") if holder.silent else f"{heard} ago",
        )
    return table


def _outlook(status: Status) -> str:
    """The pace, the time left and their basis, or why they are unknown."""
    pace, seconds_left = status.pace, status.seconds_left
    if not status.left or (status.stopped and not status.live):
        return ""
    if not status.live:
        return "No live workers."
    if pace is None or seconds_left is None:
        return f"The remaining time can be estimated once {FEWEST} trials have ended."
    rate = f"{pace.per_hour:,.0f}" if pace.per_hour >= 10 else formatting.number(pace.per_hour)
    workers = "1 live worker" if pace.workers == 1 else f"{pace.workers} live workers"
    return (
        f"{rate} trials per hour, about {formatting.duration(seconds_left)} left\n"
        f"({workers}, {_time(pace.seconds)} per trial: the mean of the last {pace.trials})"
    )


def _failures(failures: Sequence[Failure]) -> RenderableType:
    table = plain_table("failed", right=("failed",))
    table.add_column("trials", no_wrap=True)
    table.add_column("cause", overflow="fold")
    for failure in failures:
        more = [] if len(failure.trials) <= NAMED else ["..."]
        table.add_row(
            str(len(failure.trials)),
            ", ".join([*(str(number) for number in failure.trials[:NAMED]), *more]),
            Text(failure.cause),
        )
    return table


def _departures(departures: Mapping[str, str]) -> RenderableType:
    table = plain_table("worker that left")
    table.add_column("reason", overflow="fold")
    for worker, reason in departures.items():
        table.add_row(Text(one_line(worker)), Text(one_line(reason)))
    return table


def _time(seconds: float) -> str:
    """A duration, in seconds below two minutes."""
    if seconds < 10:
        return f"{max(seconds, 0):.2g} s"
    return f"{seconds:.0f} s" if seconds < 120 else formatting.duration(seconds)


class StatusView(Redrawn):
    """A live view of the status; the last one stays on the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown: RenderableType = Text()

    def show(self, status: Status) -> None:
        """Redraw the status."""
        self._shown = Group(status_table(status), *map(Text, status_advice(status)))
        self._live.update(self._shown, refresh=True)

    def wait(self, cause: str) -> None:
        """Show below the last status why it is not being updated."""
        waiting = Text(f"waiting for the database: {cause}", style="yellow")
        self._live.update(Group(self._shown, Text(), waiting), refresh=True)
