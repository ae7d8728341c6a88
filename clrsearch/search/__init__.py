"""The search: which trial to run next, when to prune, which schedule wins; never imports torch."""

from clrsearch.search.allocation import OPENING, Run, budget, every_run, next_runs
from clrsearch.search.confirm import judge
from clrsearch.search.consistency import Misfit, misfits
from clrsearch.search.finalists import finalists
from clrsearch.search.fresh import Fresh, read_fresh
from clrsearch.search.history import History, Record, State, best_first, leader
from clrsearch.search.importance import LEAST as LEAST_FOR_IMPORTANCES
from clrsearch.search.importance import importances
from clrsearch.search.plan import (
    ConfirmPlan,
    StudyPlan,
    differences,
    load_plan,
    nearest,
    read_toml,
    refuse_task,
    require_plan,
    settings,
)
from clrsearch.search.posterior import alike, beliefs, expected_of
from clrsearch.search.pruner import PRUNERS, hopeless
from clrsearch.search.rangetest import RangeTest, padded, read_range_test, smoothed
from clrsearch.search.sampler import quiet, suggest
from clrsearch.search.space import GROUPS, StudySpace, build_space, fitting, require_size
from clrsearch.search.stored import ATTRIBUTE
from clrsearch.search.study import CURVES, Study
from clrsearch.search.study_names import (
    exists,
    remove_unreadable,
    require_name,
    searches,
    study_names,
)
from clrsearch.search.traces import one_each
from clrsearch.search.verdict import Standing, Verdict

__all__ = [
    "ATTRIBUTE",
    "CURVES",
    "GROUPS",
    "LEAST_FOR_IMPORTANCES",
    "OPENING",
    "PRUNERS",
    "ConfirmPlan",
    "Fresh",
    "History",
    "Misfit",
    "RangeTest",
    "Record",
    "Run",
    "Standing",
    "State",
    "Study",
    "StudyPlan",
    "StudySpace",
    "Verdict",
    "alike",
    "beliefs",
    "best_first",
    "budget",
    "build_space",
    "differences",
    "every_run",
    "exists",
    "expected_of",
    "finalists",
    "fitting",
    "hopeless",
    "importances",
    "judge",
    "leader",
    "load_plan",
    "misfits",
    "nearest",
    "next_runs",
    "one_each",
    "padded",
    "quiet",
    "read_fresh",
    "read_range_test",
    "read_toml",
    "refuse_task",
    "remove_unreadable",
    "require_name",
    "require_plan",
    "require_size",
    "searches",
    "settings",
    "smoothed",
    "study_names",
    "suggest",
]
