"""Reports on running and finished studies."""

from clrsearch.reports.confirmed import Confirmed
from clrsearch.reports.draw import picture, require_picture, require_place, save, to_plotly
from clrsearch.reports.figure import Figure
from clrsearch.reports.figures import ScheduleCurve, schedules_figure
from clrsearch.reports.formatting import (
    duration,
    ends,
    number,
    schedule_line,
    schedule_values,
    trial_json,
    trial_line,
    worth,
)
from clrsearch.reports.live import Lines, LiveView, Watch
from clrsearch.reports.overlay import Artifacts, Extras, Overlay
from clrsearch.reports.page import Page, read_page, render_page
from clrsearch.reports.pictures import (
    picture_of_curves,
    picture_of_progress,
    picture_of_range_test,
    picture_of_schedules,
    picture_of_scores,
    picture_of_search,
)
from clrsearch.reports.sentence import settling, verdict_sentence
from clrsearch.reports.shortfall import shortfall
from clrsearch.reports.snapshot import Snapshot, snapshot
from clrsearch.reports.source import source_code
from clrsearch.reports.status import (
    Status,
    StatusView,
    read_status,
    status_advice,
    status_json,
    status_table,
)
from clrsearch.reports.tables import (
    confirmed_table,
    list_table,
    preview_table,
    result_table,
    study_table,
    trial_table,
)
from clrsearch.reports.terminal import Terminal, one_line, say

__all__ = [
    "Artifacts",
    "Confirmed",
    "Extras",
    "Figure",
    "Lines",
    "LiveView",
    "Overlay",
    "Page",
    "ScheduleCurve",
    "Snapshot",
    "Status",
    "StatusView",
    "Terminal",
    "Watch",
    "confirmed_table",
    "duration",
    "ends",
    "list_table",
    "number",
    "one_line",
    "picture",
    "picture_of_curves",
    "picture_of_progress",
    "picture_of_range_test",
    "picture_of_schedules",
    "picture_of_scores",
    "picture_of_search",
    "preview_table",
    "read_page",
    "read_status",
    "render_page",
    "require_picture",
    "require_place",
    "result_table",
    "save",
    "say",
    "schedule_line",
    "schedule_values",
    "schedules_figure",
    "settling",
    "shortfall",
    "snapshot",
    "source_code",
    "status_advice",
    "status_json",
    "status_table",
    "study_table",
    "to_plotly",
    "trial_json",
    "trial_line",
    "trial_table",
    "verdict_sentence",
    "worth",
]
