"""Who finds the better schedule in the same time: clrsearch, or what one would use without it.

For each study seed `clrsearch run` goes first, on two workers, its start and its confirmation
included. Each peer then has as many seconds, two processes, the same task and the same space, and
ends with the best value it has seen. What counts is the mean of what each has chosen over 10 seeds
that nobody has seen; all runs of one seed share weights, data order and noise. From `benchmarks/`:

    pip install 'ray[tune]' syne-tune
    python -m peers --task denoise --seeds 0 1 2 3 4 5 6 7 8 9
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean

import optuna
from scipy.stats import ttest_rel

from clrsearch.schedules import Schedule
from clrsearch.search import StudyPlan
from peers import by_clrsearch, by_optuna, by_ray, by_syne_tune
from peers.job import train

FRESH = range(1000, 1010)
FIRST = "clrsearch"
OURS: Mapping[str, Mapping[str, object]] = {
    FIRST: {},
    "clrsearch, random": {"sampler": "random"},
    "clrsearch, TPE": {"sampler": "tpe"},
    "clrsearch, never pruned": {"pruner": "none"},
}
"""The keys of a plan that differ from the usual ones."""
PEERS: Mapping[str, Callable[[str, int, float, str], tuple[Schedule, int]]] = {
    f"Optuna, {kind}": partial(by_optuna.search, kind) for kind in by_optuna.KINDS
} | {
    "Ray Tune, ASHA with Optuna": by_ray.search,
    "Syne Tune, ASHA with CQR": by_syne_tune.search,
}
"""From a task, a study seed, the seconds it may take, and a folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default=StudyPlan().task)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(10)])
    parser.add_argument("--trials", type=int, default=StudyPlan().trials, help="of clrsearch")
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], help="of these, by name")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scores: dict[str, list[float]] = {}
    print("| seed | who | s | runs | chosen | mean of 10 fresh seeds |\n|---|---|---|---|---|---|")
    for seed in asked.seeds:
        seconds = 0.0
        for who in dict.fromkeys([FIRST, *asked.only]):
            began = time.time()
            with tempfile.TemporaryDirectory() as folder:
                if who in OURS:
                    keys = {"trials": asked.trials, **OURS[who]}
                    schedule, runs = by_clrsearch.search(asked.task, seed, folder, keys)
                else:
                    schedule, runs = PEERS[who](asked.task, seed, seconds, folder)
            took = time.time() - began
            seconds = seconds or took
            found = mean(train(asked.task, schedule, seed, index) for index in FRESH)
            scores.setdefault(who, []).append(found)
            row = (seed, who, f"{took:.0f}", runs, schedule.family, f"{found:.5f}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    ours = scores.pop(FIRST)
    print("\n| who | mean | against clrsearch: difference, 95 % | p, paired |\n|---|---|---|---|")
    print(f"| {FIRST} | {mean(ours):.5f} | | |")
    for who, theirs in scores.items():
        test = ttest_rel(theirs, ours)
        low, high = test.confidence_interval()
        difference = f"{mean(theirs) - mean(ours):+.5f} ({low:+.5f} to {high:+.5f})"
        print(f"| {who} | {mean(theirs):.5f} | {difference} | {test.pvalue:.2g} |")


if __name__ == "__main__":
    main()
