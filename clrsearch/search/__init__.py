"""The search: which trial to run next, when to prune, which schedule wins; never imports torch."""

from clrsearch.search.allocation import OPENING, Run, budget, every_run, next_runs
from clrsearch.search.budgeting import (
    LOT,
    end_if_over,
    is_over,
    next_lot,
    read_purses,
    tend,
)
from clrsearch.search.conditions import Condition, read_conditions
from clrsearch.search.confirm import judge
from clrsearch.search.consistency import Misfit, misfits
from clrsearch.search.fresh import Fresh, read_fresh
from clrsearch.search.history import History, Record, State, best_first, leader
from clrsearch.search.horizon_runs import EPOCHS, held_until
from clrsearch.search.horizon_runs import FAMILY as HORIZON_FAMILY
from clrsearch.search.horizon_runs import count as runs_of
from clrsearch.search.importance import LEAST as LEAST_FOR_IMPORTANCES
from clrsearch.search.importance import importances
from clrsearch.search.plan import (
    BASELINE,
    BUDGETS,
    LIMITS,
    SEARCHED,
    ConfirmPlan,
    HorizonPlan,
    StudyPlan,
    differences,
    nearest,
    require_plan,
    settings,
)
from clrsearch.search.plan_file import limited, load_plan, read_toml, refuse_task
from clrsearch.search.plan_schema import study_schema
from clrsearch.search.posteriors import alike, beliefs, expected_of
from clrsearch.search.progress import Phase, Progress
from clrsearch.search.pruner import PRUNERS, hopeless
from clrsearch.search.rangetest import RangeTest, padded, read_range_test, smoothed
from clrsearch.search.repository import Finalist, Granted, Studies
from clrsearch.search.rescaling import Rescaled, Rule, length_keys, rescaled, respaced
from clrsearch.search.sampler import quiet, suggest
from clrsearch.search.shortlist import finalists
from clrsearch.search.space import (
    GROUPS,
    RATES,
    StudySpace,
    build_space,
    fitting,
    misfit_reason,
    rate_of,
    require_size,
    setting_of,
)
from clrsearch.search.spending import (
    SLACK,
    Purse,
    fewest_runs,
    further_runs,
    further_trials,
    purses,
    workers_at_work,
)
from clrsearch.search.study import CURVES, Study
from clrsearch.search.study_names import require_name
from clrsearch.search.study_record import ATTRIBUTE
from clrsearch.search.traces import one_each
from clrsearch.search.verdict import Standing, Verdict
from clrsearch.search.warm_start import EarlierStudy, remembered

__all__ = [
    "ATTRIBUTE",
    "BASELINE",
    "BUDGETS",
    "CURVES",
    "EPOCHS",
    "GROUPS",
    "HORIZON_FAMILY",
    "LEAST_FOR_IMPORTANCES",
    "LIMITS",
    "LOT",
    "OPENING",
    "PRUNERS",
    "RATES",
    "SEARCHED",
    "SLACK",
    "Condition",
    "ConfirmPlan",
    "EarlierStudy",
    "Finalist",
    "Fresh",
    "Granted",
    "History",
    "HorizonPlan",
    "Misfit",
    "Phase",
    "Progress",
    "Purse",
    "RangeTest",
    "Record",
    "Rescaled",
    "Rule",
    "Run",
    "Standing",
    "State",
    "Studies",
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
    "end_if_over",
    "every_run",
    "expected_of",
    "fewest_runs",
    "finalists",
    "fitting",
    "further_runs",
    "further_trials",
    "held_until",
    "hopeless",
    "importances",
    "is_over",
    "judge",
    "leader",
    "length_keys",
    "limited",
    "load_plan",
    "misfit_reason",
    "misfits",
    "nearest",
    "next_lot",
    "next_runs",
    "one_each",
    "padded",
    "purses",
    "quiet",
    "rate_of",
    "read_conditions",
    "read_fresh",
    "read_purses",
    "read_range_test",
    "read_toml",
    "refuse_task",
    "remembered",
    "require_name",
    "require_plan",
    "require_size",
    "rescaled",
    "respaced",
    "runs_of",
    "setting_of",
    "settings",
    "smoothed",
    "study_schema",
    "suggest",
    "tend",
    "workers_at_work",
]
