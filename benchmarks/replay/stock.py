"""Optuna as one writes it by hand: one study over a conditional space, with its own parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.trial import TrialState
from suggesting import suggested

from replay.play import Game, Schedule
from replay.strategies import Strategy, best_of_top, seeds_of


def proposed(study: optuna.Study, game: Game) -> tuple[optuna.Trial, Schedule]:
    """A trial, and the schedule that is run for it.

    Where that is another one than the sampler proposed, the trial has its values.
    """
    trial = study.ask()
    family, params = suggested(trial, game.space)
    schedule = game.admit(family, params)
    if (schedule.family, schedule.params) == (family, params):
        return trial, schedule
    study.tell(trial, state=TrialState.FAIL)
    values = {f"{schedule.family}.{name}": value for name, value in schedule.params.items()}
    study.enqueue_trial({"family": schedule.family, **values})
    trial = study.ask()
    suggested(trial, game.space)
    return trial, schedule


def strategy(
    sampler: Callable[[int], optuna.samplers.BaseSampler],
    pruner: Callable[[int], optuna.pruners.BasePruner],
    *,
    confirm: bool,
) -> Strategy:
    """A study on one seed; its best trial, or of its best three the one confirmed as best.

    ``sampler`` is made of a seed, ``pruner`` of the number of epochs.
    """

    def play(game: Game, rng: np.random.Generator) -> Schedule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                sampler=sampler(int(rng.integers(2**31))), pruner=pruner(game.facts.epochs)
            )
            done: list[tuple[float, Schedule]] = []
            kept = 3 * seeds_of(game) if confirm else 0
            while game.affords(1 + kept):
                _trial(study, game, done)
        ranked = [schedule for _, schedule in sorted(done, key=lambda each: each[0])]
        return best_of_top(game, ranked, 3, seeds_of(game)) if confirm else ranked[0]

    return play


def _trial(study: optuna.Study, game: Game, done: list[tuple[float, Schedule]]) -> None:
    trial, schedule = proposed(study, game)

    def stop(values: Sequence[float]) -> bool:
        trial.report(values[-1], len(values))
        return trial.should_prune()

    outcome = game.run(schedule, 0, stop)
    if outcome.stopped:
        study.tell(trial, state=TrialState.PRUNED)
    elif outcome.diverged:  # as Optuna takes a loss that is not a number
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, outcome.score)
        done.append((outcome.score, schedule))


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's default sampler."""
    return optuna.samplers.TPESampler(seed=seed)


def joint_tpe(seed: int) -> optuna.samplers.BaseSampler:
    """The same as its documentation advises for conditional spaces."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def gaussian_process(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's Gaussian process, which draws at random what only some families have."""
    return optuna.samplers.GPSampler(seed=seed)


def never(epochs: int) -> optuna.pruners.BasePruner:
    """No pruning."""
    return optuna.pruners.NopPruner()


def median(epochs: int) -> optuna.pruners.BasePruner:
    """Optuna's default pruner."""
    return optuna.pruners.MedianPruner()


def hyperband(epochs: int) -> optuna.pruners.BasePruner:
    """Between one epoch and all."""
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
