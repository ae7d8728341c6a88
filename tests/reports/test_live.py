"""What is shown of a running study: live, line by line, or as JSON."""

from __future__ import annotations

import io
import json

import pytest
from records import WITHIN, make_record, make_snapshot
from rich.console import Console

from clrsearch.reports import Lines, LiveView
from clrsearch.reports.live import draw
from clrsearch.results import Snapshot
from clrsearch.results.formatting import duration
from clrsearch.schedules import Constant
from clrsearch.search import Record
from clrsearch.storage import SlotState


def record(number: int, state: str, *values: float) -> Record:
    return make_record(
        *values,
        number=number,
        state=state,
        family="constant",
        params={"lr": 0.1},
        metrics={"loss": values[-1], "accuracy": 0.5},
    )


def snapshot(*records: Record, total: int = 10, **changes) -> Snapshot:
    complete = [each for each in records if each.state == "complete"]
    ended = sum(each.state != "running" for each in records)
    return make_snapshot(
        records,
        metric="loss",
        slots={
            SlotState.COMPLETE: len(complete),
            SlotState.PRUNED: ended - len(complete),
            SlotState.DIVERGED: 0,
            SlotState.FAILED: 0,
            SlotState.OPEN: total - ended,
        },
        search_best=complete[0] if complete else None,
        schedules={each.number: Constant(lr=0.1) for each in complete},
        **changes,
    )


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120, force_terminal=False)


def test_lines_name_each_trial_once_when_it_ends(console) -> None:
    with Lines(console) as watch:
        watch.show(snapshot(record(0, "complete", 0.5)))
        watch.show(snapshot(record(0, "complete", 0.5), record(1, "running", 0.4)))
        watch.show(snapshot(record(0, "complete", 0.5), record(1, "pruned", 0.4, 0.3)))
        watch.show(snapshot(record(0, "complete", 0.5), record(1, "pruned", 0.4, 0.3)))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1  # the first was there before
    assert lines[0].split()[:5] == ["trial", "1", "pruned", "epoch", "2/4"]
    assert "loss 0.3, accuracy 0.5" in lines[0]
    assert "constant: lr 0.1" in lines[0]


def test_a_run_that_is_validated_between_epochs_counts_validations(console) -> None:
    with Lines(console) as watch:
        watch.show(snapshot(spacing=WITHIN))
        watch.show(snapshot(record(0, "complete", *[0.5] * 7), spacing=WITHIN))
        watch.show(snapshot(make_record(number=1, state="failed"), spacing=WITHIN))
    console.print(draw(snapshot(record(2, "running", 0.4, 0.3), spacing=WITHIN), 60.0, done=0))
    ended, failed, *live = console.file.getvalue().splitlines()
    assert ended.split()[:5] == ["trial", "0", "complete", "validation", "7/7"]
    assert "validation  0/7  no validation finished" in failed
    assert "validation 2/7" in live[-1]


def test_json_lines_can_be_read(console) -> None:
    with Lines(console, json=True) as watch:
        watch.show(snapshot())
        watch.show(snapshot(record(0, "complete", 0.5, 0.25)))
    trial = json.loads(console.file.getvalue())
    assert (trial["trial"], trial["end"], trial["value"]) == (0, "complete", 0.25)
    assert trial["values"] == {"1": 0.5, "2": 0.25}


def test_the_live_view_shows_progress_best_and_each_worker(console) -> None:
    now = snapshot(
        record(0, "complete", 0.5), record(1, "pruned", 0.9), record(2, "running", 0.4, 0.3)
    )
    console.print(draw(now, elapsed=60.0, done=2))
    shown = console.file.getvalue()
    for part in (
        "2 of 10 trials, 01:00, about 04:00 left",
        "1 complete  1 pruned  0 diverged  0 failed",
        *("search best", "loss 0.5, accuracy 0.5"),
        *("trial 2", "epoch 2/4"),
    ):
        assert part in shown


def test_the_live_view_clears_itself_away() -> None:
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with LiveView(terminal) as view:
        view.show(snapshot(record(0, "running", 0.5)))
        view.show(snapshot(record(0, "complete", 0.5)))
    assert "1 of 10 trials" in terminal.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "00:00"), (61, "01:01"), (3600, "1:00:00"), (90061, "1 day, 1:01:01")],
)
def test_durations(seconds, text) -> None:
    assert duration(seconds) == text
