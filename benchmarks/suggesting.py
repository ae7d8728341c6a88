"""A conditional space as one asks Optuna for it by hand."""

from __future__ import annotations

import optuna

from clrsearch.schedules import Choice, Value
from clrsearch.search import StudySpace


def suggested(trial: optuna.Trial, space: StudySpace) -> tuple[str, dict[str, Value]]:
    """The family first, and then what it has to set."""
    family = str(trial.suggest_categorical("family", list(space.families)))
    params: dict[str, Value] = {}
    for name, parameter in space.families[family].items():
        if not parameter.applies(params):
            continue
        domain, key = parameter.domain, f"{family}.{name}"
        if isinstance(domain, Choice):
            params[name] = trial.suggest_categorical(key, domain.options)
        elif domain.integer:
            params[name] = trial.suggest_int(key, int(domain.low), int(domain.high))
        else:
            params[name] = trial.suggest_float(key, domain.low, domain.high, log=domain.log)
    return family, params
