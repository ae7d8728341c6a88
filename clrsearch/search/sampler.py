"""Optuna samplers as pure functions of a family's history, run on in-memory studies.

TPE: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011. Each family
gets its own study: in a shared one the strong families starve the weak.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from clrsearch.schedules import Choice, Parameter, Space, Value
from clrsearch.search.history import Record, telling
from clrsearch.tasks import Direction

STARTUP = 10  # random trials of a family before the sampler proposes
REPLAYED = 500  # maximum number of records replayed: a proposal then takes about 0.1 s
REDRAWN = 20  # maximum number of redraws of parameters that were already tried

SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP, seed=seed
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP),
}
"""Optuna's samplers by name, each a factory taking a seed."""

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
}


def suggest(
    history: Sequence[Record],
    space: Space,
    *,
    direction: Direction,
    seed: int,
    sampler: str = "tpe",
    tried: Callable[[Mapping[str, Value]], bool] = lambda params: False,
) -> dict[str, Value]:
    """Propose parameters from one family's ``history``, running trials included.

    Deterministic for the same history and seed. Failed trials are left out, since they say nothing
    about their parameters; diverged ones count as infeasible. Parameters that were already
    ``tried`` are replaced by random ones; they are repeated only if nothing new is found.

    Args:
        history: the family's trials.
        space: the family's space.
        direction: whether the metric is minimized or maximized.
        seed: seed of the sampler.
        sampler: a name in :data:`SAMPLERS`.
        tried: whether parameters have been tried already.
    """
    records = telling(history, direction, most=REPLAYED)
    replayed = [_replayed(record, space) for record in records]
    with quiet():
        study = optuna.create_study(direction=direction, sampler=SAMPLERS[sampler](seed))
        study.add_trials(replayed)
        proposed = params = _draw(study, space)
        study.sampler = SAMPLERS["random"](seed)
        for _ in range(REDRAWN):
            if not tried(params):
                return params
            params = _draw(study, space)
    return proposed if tried(params) else params


def _draw(study: optuna.Study, space: Space) -> dict[str, Value]:
    trial = study.ask()
    params: dict[str, Value] = {}
    for name, parameter in space.items():
        if parameter.applies(params):
            params[name] = trial._suggest(name, distribution(parameter))
    return params


def distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter's domain as an Optuna distribution."""
    domain = parameter.domain
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def distributions(space: Space, params: Mapping[str, Value]) -> dict[str, BaseDistribution]:
    """The distributions of the parameters in ``params``.

    A value outside the space, as of a schedule that was found under another condition, has one of
    its own.
    """
    return {name: distribution(_holding(space[name], params[name])) for name in params}


def _holding(parameter: Parameter, value: Value) -> Parameter:
    domain = parameter.domain
    if isinstance(domain, Choice) or isinstance(value, str) or value == domain.clip(value):
        return parameter
    return replace(parameter, domain=replace(domain, low=value, high=value))


def _replayed(record: Record, space: Space) -> FrozenTrial:
    """Convert a record to an Optuna trial; TPE uses only the last value of a pruned curve."""
    value = record.value
    last = {} if record.state != "pruned" or value is None else {record.epoch: value}
    return create_trial(
        state=_STATES[record.state],
        params=dict(record.params),
        distributions=distributions(space, record.params),
        intermediate_values=last,
        value=value if record.state == "complete" else None,
        constraints={"diverged": 1.0} if record.diverged else None,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's experimental warnings and its log line for new in-memory studies."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
