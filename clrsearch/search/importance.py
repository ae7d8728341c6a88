"""Which parameters a family's results depended on most, by PED-ANOVA.

S. Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import get_param_importances
from optuna.trial import TrialState, create_trial

from clrsearch.schedules import Space
from clrsearch.search.history import Record
from clrsearch.search.sampler import distributions, quiet
from clrsearch.tasks import Direction

LEAST = 20
"""Complete trials, below which the best tenth is too few of them to be compared with the others."""


def importances(
    records: Sequence[Record], space: Space, *, direction: Direction
) -> dict[str, float]:
    """The shares of one family's parameters, the largest first; nothing below 20 complete trials.

    They add up to 1. There is none either where as many trials as are compared score the same.
    """
    complete = [record for record in records if record.state == "complete"]
    if len(complete) < LEAST:
        return {}
    with quiet():
        study = optuna.create_study(direction=direction)
        study.add_trials(
            [
                create_trial(
                    state=TrialState.COMPLETE,
                    params=dict(record.params),
                    distributions=distributions(space, record.params),
                    value=record.value,
                )
                for record in complete
            ]
        )
        warnings.simplefilter("ignore", UserWarning)  # that a parameter is rarely searched
        warnings.filterwarnings("error", "Target and region", UserWarning)  # the best are all
        try:
            return get_param_importances(study)
        except UserWarning:
            return {}
