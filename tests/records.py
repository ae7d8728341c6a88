"""Records of trials and snapshots of studies, for tests that decide or draw without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from clrsearch.results import Snapshot
from clrsearch.search import Record
from clrsearch.storage import SlotState
from clrsearch.tasks import Spacing

STEPS = Spacing(epochs=3, steps_per_epoch=50 / 3, steps=50, validate_every=20)
"""Of a study in steps, validated after 20, 40 and 50 of them."""
WITHIN = Spacing(epochs=3, steps_per_epoch=11, validate_every=5)
"""Of 3 epochs, validated 7 times."""
UNEVEN = Spacing(epochs=4, steps_per_epoch=3.5)
"""Of 4 epochs that differ in length, validated after each."""


def make_record(*values: float, number: int = 0, state: str = "complete", **changes: Any) -> Record:
    """A trial whose metric was ``values`` at its first epochs."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    given: dict[str, Any] = {
        "number": number,
        "slot": number,
        "family": "cyclic",
        "params": {},
        "state": state,
        "diverged": False,
        "values": dict(enumerate(values, start=1)),
        "metrics": {},
        "worker": "w",
        "device": "cpu",
        "seconds": 1.0,
        "drift": 0.0,
        "error": "",
        "final": False,
        "finalist": None,
        "seed_index": 0,
        "test": {},
        "started": now,
        "ended": None if state == "running" else now,
    }
    return Record(**(given | changes))


def make_snapshot(records: Sequence[Record], **changes: Any) -> Snapshot:
    """A study whose slots have ended with these trials, and that has confirmed none."""
    complete = [each for each in records if each.state == "complete"]
    given: dict[str, Any] = {
        "name": "mine",
        "task": "mine.py:Mine",
        "metric": "error",
        "direction": "minimize",
        "spacing": Spacing(epochs=4, steps_per_epoch=4),
        "slots": dict.fromkeys(SlotState, 0) | {SlotState.COMPLETE: len(complete)},
        "confirmed": None,
        "records": records,
        "search_best": min(complete, key=lambda record: record.value, default=None),
        "baseline": None,
        "baseline_family": "constant",
        "schedules": {},
    }
    return Snapshot(**(given | changes))
