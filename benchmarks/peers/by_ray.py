"""Ray Tune: Optuna's TPE proposes, ASHA stops, as its own guide to Optuna has it."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from suggesting import suggested

from clrsearch.schedules import Schedule
from peers.job import WORKERS, parts, train


def search(
    task: str, seed: int, seconds: float, folder: str, trials: int = -1, reuse: bool = False
) -> tuple[Schedule, int]:
    """The trial with the best last value, and how many it has begun, its start included.

    As many as fit, or ``trials`` at most; one after the other in the same processes if ``reuse``.
    """
    _, facts, _, space = parts(task)
    mode = "min" if facts.direction == "minimize" else "max"

    def trainable(config: dict[str, Any]) -> None:
        schedule = parts(task)[3].build(*config["schedule"])

        def report(epoch: int, value: float) -> None:
            tune.report({facts.metric: value})

        last = train(task, schedule, seed, 0, report)
        if abs(last) == float("inf"):
            tune.report({facts.metric: last})

    deadline = time.time() + seconds
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric=facts.metric,
                mode=mode,
                search_alg=OptunaSearch(
                    partial(proposed, task=task), metric=facts.metric, mode=mode, seed=seed
                ),
                scheduler=ASHAScheduler(max_t=facts.epochs),
                num_samples=trials,
                time_budget_s=max(deadline - time.time(), 1.0),
                max_concurrent_trials=WORKERS,
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    best = results.get_best_result()
    return space.build(*best.config["schedule"]), len(results)


def proposed(trial: optuna.Trial, *, task: str) -> dict[str, Any]:
    """The configuration of one trial."""
    return {"schedule": suggested(trial, parts(task)[3])}
