"""Reports: the terminal, the HTML page, and what optuna-dashboard shows."""

from clrsearch.reports.live import Lines, LiveView, Watch
from clrsearch.reports.overlay import Artifacts, Extras, Overlay
from clrsearch.reports.page import Page, read_page, render_page
from clrsearch.reports.status_view import StatusView, status_advice, status_table
from clrsearch.reports.tables import (
    confirmed_table,
    horizon_table,
    list_table,
    preview_table,
    result_table,
    study_table,
    trial_table,
    variation_table,
)
from clrsearch.reports.terminal import Terminal, one_line, say

__all__ = [
    "Artifacts",
    "Extras",
    "Lines",
    "LiveView",
    "Overlay",
    "Page",
    "StatusView",
    "Terminal",
    "Watch",
    "confirmed_table",
    "horizon_table",
    "list_table",
    "one_line",
    "preview_table",
    "read_page",
    "render_page",
    "result_table",
    "say",
    "status_advice",
    "status_table",
    "study_table",
    "trial_table",
    "variation_table",
]
