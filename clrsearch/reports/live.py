"""A running study in the terminal: a live view, one line per finished trial, or JSON lines."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clrsearch.reports.tables import confirmed_table
from clrsearch.reports.terminal import one_line
from clrsearch.results import formatting
from clrsearch.results.snapshots import ENDS, Snapshot
from clrsearch.storage import SlotState

COLOURS = {
    SlotState.COMPLETE: "green",
    SlotState.PRUNED: "yellow",
    SlotState.DIVERGED: "magenta",
    SlotState.FAILED: "red",
}


class Watch(Protocol):
    """A display of a running study."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Show the study as it is now; called about twice a second."""


class Lines:
    """One line per finished trial; trials that had finished before the start are skipped."""

    def __init__(self, console: Console, *, json: bool = False) -> None:
        self._console = console
        self._json = json
        self._seen: set[tuple[int, int]] | None = (
            None  # seed index (0 in the search) and trial number
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, snapshot: Snapshot) -> None:
        """Print the trials that have finished since the last call."""
        runs = snapshot.confirmed.runs if snapshot.confirmed else ()
        ended = [each for each in (*snapshot.records, *runs) if each.state != "running"]
        finished = {(each.seed_index, each.number): each for each in ended}
        if self._seen is None:
            self._seen = set(finished)
        for key in sorted(finished.keys() - self._seen):
            record = finished[key]
            line = (
                formatting.trial_json(record, snapshot.metric)
                if self._json
                else formatting.trial_line(record, snapshot.metric, snapshot.spacing)
            )
            self._console.print(line, soft_wrap=True)
        self._seen |= finished.keys()


class Redrawn:
    """A display that is redrawn in place; a ``transient`` one is cleared away at the end."""

    def __init__(self, console: Console, *, transient: bool = False) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=transient)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class LiveView(Redrawn):
    """Progress and remaining time, counts by outcome, the best so far, and running trials."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, transient=True)
        self._started = time.monotonic()
        self._done_before: int | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the study."""
        if self._done_before is None:
            self._done_before = snapshot.done
        elapsed = time.monotonic() - self._started
        self._live.update(draw(snapshot, elapsed, snapshot.done - self._done_before), refresh=True)


def draw(snapshot: Snapshot, elapsed: float, done: int) -> RenderableType:
    """Contents of the live view, ``elapsed`` seconds and ``done`` slots after its start."""
    left = snapshot.total - snapshot.done
    remaining = (
        f", about {formatting.duration(elapsed / done * left)} left" if done and left else ""
    )
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(one_line(snapshot.name), style="bold"),
        ProgressBar(total=snapshot.total, completed=snapshot.done, width=32),
        f"{snapshot.done} of {snapshot.total} trials, {formatting.duration(elapsed)}{remaining}",
    )
    counts = Text("  ").join(
        Text(f"{snapshot.slots[end]} {end}", style=COLOURS[end] if snapshot.slots[end] else "dim")
        for end in ENDS
    )
    confirming = (
        [] if snapshot.confirmed is None else [confirmed_table(snapshot.confirmed, snapshot)]
    )
    best = Table.grid(padding=(0, 2))
    for label, record in (("search best", snapshot.search_best), ("baseline", snapshot.baseline)):
        if record is not None:
            best.add_row(
                label,
                f"trial {record.number}",
                formatting.metrics(record, snapshot.metric, snapshot.spacing),
                Text(
                    formatting.schedule_line(snapshot.schedules[record.number])
                    + formatting.groups(record),
                    style="dim",
                ),
            )
    running, spacing = Table.grid(padding=(0, 2)), snapshot.spacing
    for record in snapshot.running:
        intervals = formatting.intervals_of(record, spacing)
        running.add_row(
            formatting.trial_name(record),
            ProgressBar(total=intervals, completed=record.epoch, width=16),
            f"{spacing.progress} {record.epoch}/{intervals}",
            "" if record.value is None else f"{snapshot.metric} {formatting.number(record.value)}",
            Text(formatting.params(record), style="dim", no_wrap=True, overflow="ellipsis"),
        )
    return Group(head, counts, best, running, *confirming)
