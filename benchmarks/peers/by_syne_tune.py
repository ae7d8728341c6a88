"""Syne Tune: conformal quantile regression proposes, ASHA stops; a process for each trial.

Its space knows no conditions: the values of every family are drawn, and those of one are used.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from syne_tune import Reporter, StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import Domain, choice, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHACQR
from syne_tune.utils import add_config_json_to_argparse, load_config_json

from clrsearch.schedules import Choice, Parameter, Schedule, Value
from peers.job import WORKERS, parts, train


def search(task: str, seed: int, seconds: float, folder: str) -> tuple[Schedule, int]:
    """The trial with the best value, and how many it has begun."""
    logging.getLogger("syne_tune").setLevel(logging.ERROR)
    os.environ["SYNETUNE_FOLDER"] = folder
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    _, facts, _, space = parts(task)
    flat = {"task": task, "seed": seed, "family": choice(list(space.families))} | {
        f"{family}.{key}": drawn(parameter)
        for family, own in space.families.items()
        for key, parameter in own.items()
    }
    scheduler = ASHACQR(
        flat,
        facts.metric,
        time_attr="epoch",
        max_t=facts.epochs,
        do_minimize=facts.direction == "minimize",
        random_seed=seed,
    )
    tuner = Tuner(
        trial_backend=LocalBackend(__file__, pass_args_as_json=True),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=seconds),
        n_workers=WORKERS,
        sleep_time=0.2,
        save_tuner=False,
    )
    with open(os.devnull, "w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet):
        tuner.run()
        _, config = tuner.best_config(facts.metric)
    return space.build(*chosen(config, task)), len(tuner.tuning_status.trial_rows)


def drawn(parameter: Parameter) -> Domain | Value:
    """A parameter's range in Syne Tune's words; a value where there is but one."""
    domain = parameter.domain
    if isinstance(domain, Choice):
        return choice(list(domain.options))
    if domain.low == domain.high:
        return domain.low
    if domain.integer:
        between = lograndint if domain.log else randint
        return between(int(domain.low), int(domain.high))
    return (loguniform if domain.log else uniform)(domain.low, domain.high)


def chosen(config: Mapping[str, Value], task: str) -> tuple[str, dict[str, Value]]:
    """The family of a configuration and, of all that was drawn, what that has to set."""
    family = str(config["family"])
    params: dict[str, Value] = {}
    for key, parameter in parts(task)[3].families[family].items():
        if parameter.applies(params):
            params[key] = config[f"{family}.{key}"]
    return family, params


def trial() -> None:
    """The process of one trial."""
    parser = argparse.ArgumentParser()
    add_config_json_to_argparse(parser)
    config = load_config_json(vars(parser.parse_known_args()[0]))
    task, report = config["task"], Reporter()
    metric, schedule = parts(task)[1].metric, parts(task)[3].build(*chosen(config, task))

    def told(epoch: int, value: float) -> None:
        report(**{"epoch": epoch, metric: value})

    train(task, schedule, config["seed"], 0, told)


if __name__ == "__main__":
    trial()
