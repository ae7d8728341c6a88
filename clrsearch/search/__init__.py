"""Decides what to try, where to stop and who leads; never imports torch or training."""

from clrsearch.search.confirm import Standing, Verdict, finalists, judge
from clrsearch.search.history import History, Record, leader
from clrsearch.search.plan import ConfirmPlan, StudyPlan, differences, load_plan, nearest
from clrsearch.search.pruner import hopeless
from clrsearch.search.rangetest import RangeTest, padded, read_range_test, smoothed
from clrsearch.search.sampler import suggest
from clrsearch.search.space import GROUPS, StudySpace, build_space
from clrsearch.search.study import Study, exists, studies

__all__ = [
    "GROUPS",
    "ConfirmPlan",
    "History",
    "RangeTest",
    "Record",
    "Standing",
    "Study",
    "StudyPlan",
    "StudySpace",
    "Verdict",
    "build_space",
    "differences",
    "exists",
    "finalists",
    "hopeless",
    "judge",
    "leader",
    "load_plan",
    "nearest",
    "padded",
    "read_range_test",
    "smoothed",
    "studies",
    "suggest",
]
