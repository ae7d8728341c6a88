"""Optuna as one writes it by hand: an objective, a sampler, a pruner, a process per core."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import MaxTrialsCallback
from suggesting import suggested

from clrsearch.schedules import Schedule
from peers.job import WORKERS, parts, train

KINDS: Mapping[str, tuple[Callable[[int], BaseSampler], Callable[[int], BasePruner]]] = {
    "TPE, median": (lambda seed: TPESampler(seed=seed), lambda epochs: MedianPruner()),
    "TPE, Hyperband": (
        lambda seed: TPESampler(seed=seed),
        lambda epochs: HyperbandPruner(min_resource=1, max_resource=epochs),
    ),
    "GP": (lambda seed: GPSampler(seed=seed), lambda epochs: NopPruner()),
    "random": (lambda seed: RandomSampler(seed=seed), lambda epochs: NopPruner()),
}
"""A sampler, from a seed, and a pruner, from the number of epochs."""


def search(
    kind: str, task: str, seed: int, seconds: float, folder: str, trials: int | None = None
) -> tuple[Schedule, int]:
    """The best of all trials, and how many it has begun: as many as fit, or ``trials`` at most."""
    storage = f"sqlite:///{folder}/peer.db"
    deadline = time.time() + seconds
    optuna.create_study(study_name=kind, storage=storage, direction=parts(task)[1].direction)
    context = multiprocessing.get_context("spawn")
    given = (kind, task, seed, storage, deadline, trials)
    processes = [context.Process(target=work, args=(*given, index)) for index in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    study = optuna.load_study(study_name=kind, storage=storage)
    family, params = study.best_params["family"], study.best_trial.user_attrs["params"]
    return parts(task)[3].build(family, params), len(study.trials)


def work(
    kind: str,
    task: str,
    seed: int,
    storage: str,
    deadline: float,
    trials: int | None,
    worker: int,
) -> None:
    """One process, up to the deadline or the last of the trials."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, pruner = KINDS[kind]
    study = optuna.load_study(
        study_name=kind,
        storage=storage,
        sampler=sampler(WORKERS * seed + worker),
        pruner=pruner(parts(task)[1].epochs),
    )
    left = deadline - time.time()
    study.optimize(
        partial(objective, task=task, seed=seed),
        timeout=max(left, 0.0),
        callbacks=[] if trials is None else [MaxTrialsCallback(trials, states=None)],
    )


def objective(trial: optuna.Trial, *, task: str, seed: int) -> float:
    """One training on the study's seed, as long as the pruner lets it run."""
    family, params = suggested(trial, parts(task)[3])
    trial.set_user_attr("params", params)

    def report(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return train(task, parts(task)[3].build(family, params), seed, 0, report)
