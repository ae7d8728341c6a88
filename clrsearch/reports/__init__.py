"""Reads a finished or running study and shows it."""

from clrsearch.reports.live import Lines, LiveView, Watch
from clrsearch.reports.snapshot import Snapshot, snapshot
from clrsearch.reports.source import source_code
from clrsearch.reports.status import Status, StatusView, read_status, status_json, status_table
from clrsearch.reports.tables import (
    confirmed_table,
    list_table,
    result_table,
    study_table,
    trial_table,
)
from clrsearch.reports.words import duration, ends, schedule_values, trial_json, trial_line

__all__ = [
    "Lines",
    "LiveView",
    "Snapshot",
    "Status",
    "StatusView",
    "Watch",
    "confirmed_table",
    "duration",
    "ends",
    "list_table",
    "read_status",
    "result_table",
    "schedule_values",
    "snapshot",
    "source_code",
    "status_json",
    "status_table",
    "study_table",
    "trial_json",
    "trial_line",
    "trial_table",
]
