"""Records of trials, for tests that decide or draw without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from clrsearch.search import Record


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
