"""Who finds the better schedule in the same time: clrsearch, or Optuna as one writes it by hand.

For each study seed `clrsearch run` goes first, on two workers, its start and its confirmation
included. Each peer then has as many seconds, two processes, the same task and the same space, and
ends with the best value it has seen. What counts is the mean of what each has chosen over 10 seeds
that nobody has seen; all runs of one seed share weights, data order and noise.

    python benchmarks/peers.py --task denoise --seeds 0 1 2 3 4 5 6 7 8 9
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from statistics import mean

import optuna
import torch
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from scipy.stats import ttest_rel

from clrsearch import service, trace
from clrsearch.schedules import Choice, Schedule, Value
from clrsearch.search import StudyPlan, build_space
from clrsearch.tasks import load_task
from clrsearch.training import Diverged, SequentialRun, TaskData, probe

CPU = torch.device("cpu")
WORKERS = 2
FRESH = range(1000, 1010)
OURS: Mapping[str, Mapping[str, object]] = {
    "clrsearch": {},
    "clrsearch, random": {"sampler": "random"},
    "clrsearch, TPE": {"sampler": "tpe"},
}
"""Studies of clrsearch, by what differs from the usual plan; the first sets the time."""
PEERS: Mapping[str, tuple[Callable[[int], BaseSampler], Callable[[int], BasePruner]]] = {
    "Optuna, TPE, median": (lambda seed: TPESampler(seed=seed), lambda epochs: MedianPruner()),
    "Optuna, TPE, Hyperband": (
        lambda seed: TPESampler(seed=seed),
        lambda epochs: HyperbandPruner(min_resource=1, max_resource=epochs),
    ),
    "Optuna, GP": (lambda seed: GPSampler(seed=seed), lambda epochs: NopPruner()),
    "Optuna, random": (lambda seed: RandomSampler(seed=seed), lambda epochs: NopPruner()),
}
"""What one would write by hand: a sampler, from a seed, and a pruner, from the number of epochs."""


@cache
def parts(name: str):
    """A task, its facts, its data and the space of the usual plan."""
    torch.set_num_threads(1)
    loaded = load_task(name, folder=Path())
    facts = probe(loaded, device=CPU)
    data = TaskData(loaded.task, facts.batch_size, CPU)
    return loaded.task, facts, data, build_space(StudyPlan(task=name), facts)


def train(
    name: str,
    schedule: Schedule,
    seed: int,
    seed_index: int,
    report: Callable[[int, float], None] = lambda epoch, value: None,
) -> float:
    """The last value of the metric; NaN where the run diverged."""
    task, facts, data, _ = parts(name)
    rates = trace(schedule, facts.horizon, facts.ratios)
    run = SequentialRun(task, facts, data, rates, seed=seed, seed_index=seed_index, device=CPU)
    try:
        for epoch in range(1, facts.epochs + 1):
            value = run.next_epoch().metrics[facts.metric]
            report(epoch, value)
    except Diverged:
        return float("nan")
    return value


def suggested(trial: optuna.Trial, name: str) -> tuple[str, dict[str, Value]]:
    """The family first, and then what it has to set."""
    space = parts(name)[3]
    family = str(trial.suggest_categorical("family", list(space.families)))
    params: dict[str, Value] = {}
    for key, parameter in space.families[family].items():
        domain, of_family = parameter.domain, f"{family}.{key}"
        if not parameter.applies(params):
            continue
        if isinstance(domain, Choice):
            params[key] = trial.suggest_categorical(of_family, domain.options)
        elif domain.integer:
            params[key] = trial.suggest_int(of_family, int(domain.low), int(domain.high))
        else:
            params[key] = trial.suggest_float(of_family, domain.low, domain.high, log=domain.log)
    return family, params


def objective(trial: optuna.Trial, *, name: str, seed: int) -> float:
    """One training on the study's seed, as long as the pruner lets it run."""
    family, params = suggested(trial, name)
    trial.set_user_attr("params", params)

    def report(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return train(name, parts(name)[3].build(family, params), seed, 0, report)


def work(peer: str, name: str, seed: int, storage: str, deadline: float, worker: int) -> None:
    """One process of a peer, up to the deadline."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, pruner = PEERS[peer]
    study = optuna.create_study(
        study_name=peer,
        storage=storage,
        direction=parts(name)[1].direction,
        sampler=sampler(WORKERS * seed + worker),
        pruner=pruner(parts(name)[1].epochs),
        load_if_exists=True,
    )
    left = deadline - time.time()
    study.optimize(partial(objective, name=name, seed=seed), timeout=max(left, 0.0))


def ours(name: str, seed: int, keys: Mapping[str, object], folder: str) -> tuple[Schedule, int]:
    """What clrsearch recommends, and how many runs it has trained for that."""
    storage = f"sqlite:///{folder}/studies.db"
    plan = StudyPlan(**({"task": name, "seed": seed} | dict(keys)))
    found = service.run(plan, name="mine", storage=storage, workers=WORKERS, device="cpu").snapshot
    runs = len(found.records) + len(found.confirmed.runs)
    return service.best("mine", storage=storage).schedule, runs


def theirs(peer: str, name: str, seed: int, seconds: float, folder: str) -> tuple[Schedule, int]:
    """What a peer has found after so many seconds, and how many runs it has begun for that."""
    storage = f"sqlite:///{folder}/peer.db"
    deadline = time.time() + seconds
    optuna.create_study(study_name=peer, storage=storage, direction=parts(name)[1].direction)
    context = multiprocessing.get_context("spawn")
    given = (peer, name, seed, storage, deadline)
    processes = [context.Process(target=work, args=(*given, index)) for index in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    study = optuna.load_study(study_name=peer, storage=storage)
    family, params = study.best_params["family"], study.best_trial.user_attrs["params"]
    return parts(name)[3].build(family, params), len(study.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default=StudyPlan().task)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(10)])
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], help="of these, by name")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scores: dict[str, list[float]] = {}
    print("| seed | who | s | runs | chosen | mean of 10 fresh seeds |\n|---|---|---|---|---|---|")
    for seed in asked.seeds:
        seconds = 0.0
        for who in dict.fromkeys([next(iter(OURS)), *asked.only]):
            began = time.time()
            with tempfile.TemporaryDirectory() as folder:
                if who in OURS:
                    schedule, runs = ours(asked.task, seed, OURS[who], folder)
                else:
                    schedule, runs = theirs(who, asked.task, seed, seconds, folder)
            took = time.time() - began
            seconds = seconds or took
            found = mean(train(asked.task, schedule, seed, index) for index in FRESH)
            scores.setdefault(who, []).append(found)
            row = (seed, who, f"{took:.0f}", runs, schedule.family, f"{found:.5f}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    first, *others = scores
    print("\n| who | mean | against clrsearch: difference | p, paired |\n|---|---|---|---|")
    print(f"| {first} | {mean(scores[first]):.5f} | | |")
    for who in others:
        difference = mean(scores[who]) - mean(scores[first])
        p = ttest_rel(scores[who], scores[first]).pvalue
        print(f"| {who} | {mean(scores[who]):.5f} | {difference:+.5f} | {p:.2g} |")


if __name__ == "__main__":
    main()
