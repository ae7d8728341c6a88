"""A search and its confirmation as one writes them by hand around Optuna or Ray Tune.

Ten constant rates on a grid, the other trials for the search; then the best of both on ten seeds
that neither has seen, and a paired t-test. The last line of its output is what it names, as JSON.
Each tool is imported where it is used, so that the others do not pay for it.

    python -m peers.by_hand Optuna --task denoise --trials 100 --seed 0
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from statistics import mean

import numpy as np
from scipy.stats import ttest_rel

from clrsearch.schedules import Constant, Schedule
from peers.job import WORKERS, parts, train

LONGEST = 600.0  # seconds of a search
FRESH = range(100, 110)  # seed indices
RATES = 10


def by_optuna(task: str, seed: int, folder: str, trials: int) -> tuple[Schedule, int]:
    """TPE and the median pruner, which are Optuna's own choice."""
    from peers.by_optuna import search

    return search("TPE, median", task, seed, LONGEST, folder, trials)


def by_ray(task: str, seed: int, folder: str, trials: int, reuse: bool) -> tuple[Schedule, int]:
    """Optuna's TPE and ASHA, in processes of Ray."""
    from peers.by_ray import search

    return search(task, seed, LONGEST, folder, trials, reuse)


SEARCHES: Mapping[str, Callable[[str, int, str, int], tuple[Schedule, int]]] = {
    "Optuna": by_optuna,
    "Ray Tune": partial(by_ray, reuse=True),
    "Ray Tune, a process per trial": partial(by_ray, reuse=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=SEARCHES)
    parser.add_argument("--task", required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    asked = parser.parse_args()
    task, seed = asked.task, asked.seed
    _, facts, _, space = parts(task)
    sign = 1 if facts.direction == "minimize" else -1
    rates = space.families["constant"]["lr"].domain
    grid = [Constant(lr=float(lr)) for lr in np.geomspace(rates.low, rates.high, RATES)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        scores = pool.starmap(train, [(task, rate, seed, 0) for rate in grid], chunksize=1)
        constant = min(zip(grid, scores, strict=True), key=lambda each: sign * each[1])[0]
        with tempfile.TemporaryDirectory() as folder:
            best, runs = SEARCHES[asked.tool](task, seed, folder, asked.trials - RATES)
        jobs = [(task, each, seed, index) for index in FRESH for each in (best, constant)]
        scores = pool.starmap(train, jobs, chunksize=1)
    ours, theirs = scores[::2], scores[1::2]
    better = sign * (mean(ours) - mean(theirs)) < 0
    named = {
        "family": best.family,
        "values": asdict(best),
        "runs": RATES + runs + len(jobs),
        "confirmed": bool(better and ttest_rel(ours, theirs).pvalue < 0.05),
    }
    print(json.dumps(named))


if __name__ == "__main__":
    main()
