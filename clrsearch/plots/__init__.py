"""Figures: what they show, and how they are drawn."""

from clrsearch.plots.draw import picture, require_picture, require_place, save, to_plotly
from clrsearch.plots.figure import Figure
from clrsearch.plots.figures import ScheduleCurve, schedules_figure
from clrsearch.plots.pictures import (
    picture_of_curves,
    picture_of_horizon,
    picture_of_progress,
    picture_of_range_test,
    picture_of_schedules,
    picture_of_scores,
    picture_of_search,
)

__all__ = [
    "Figure",
    "ScheduleCurve",
    "picture",
    "picture_of_curves",
    "picture_of_horizon",
    "picture_of_progress",
    "picture_of_range_test",
    "picture_of_schedules",
    "picture_of_scores",
    "picture_of_search",
    "require_picture",
    "require_place",
    "save",
    "schedules_figure",
    "to_plotly",
]
