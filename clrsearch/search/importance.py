"""Parameter importances within a family, by PED-ANOVA.

S. Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState, create_trial

from clrsearch.schedules import Space
from clrsearch.search.history import Record
from clrsearch.search.sampler import distributions, quiet
from clrsearch.tasks import Direction

LEAST = 20
"""Minimum number of complete trials; with fewer, the best tenth is too small a sample."""


def importances(
    records: Sequence[Record], space: Space, *, direction: Direction
) -> dict[str, float]:
    """Importance of each of a family's parameters, largest first; they sum to 1.

    Empty with fewer than 20 complete trials, or if too many trials tie for the best score.
    """
    complete = [record for record in records if record.state == "complete"]
    if len(complete) < LEAST:
        return {}
    from optuna.importance import get_param_importances  # imports scikit-learn

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
        warnings.simplefilter("ignore", UserWarning)  # a parameter is rarely searched
        warnings.filterwarnings("error", "Target and region", UserWarning)  # the best are all
        try:
            return get_param_importances(study)
        except UserWarning:
            return {}
