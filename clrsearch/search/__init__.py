"""Decides what to try, where to stop and who leads; never imports torch or training."""

from clrsearch.search.history import History, Record, leader
from clrsearch.search.plan import StudyPlan, differences, load_plan
from clrsearch.search.pruner import hopeless
from clrsearch.search.sampler import suggest
from clrsearch.search.space import StudySpace, build_space
from clrsearch.search.study import Study, exists, studies

__all__ = [
    "History",
    "Record",
    "Study",
    "StudyPlan",
    "StudySpace",
    "build_space",
    "differences",
    "exists",
    "hopeless",
    "leader",
    "load_plan",
    "studies",
    "suggest",
]
