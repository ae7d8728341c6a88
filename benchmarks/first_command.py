"""What the first command finds, against a tuned constant rate: `clrsearch run --trials 100`.

For each study seed the command runs as it is, on two workers. Then the schedule that it recommends
and the best constant rate of a grid are trained on 20 seeds that neither has seen: the grid is
judged on five others. All runs of one seed share weights, data order and noise, so the t-test is a
paired one, of two sides.

    python benchmarks/first_command.py --seeds 0 1 2 3 4 5 6 7 8 9
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from statistics import mean

from peers.job import parts, train
from scipy.stats import ttest_rel

from clrsearch import service
from clrsearch.schedules import Constant
from clrsearch.search import StudyPlan
from clrsearch.training.device import usable_cores

TASK = StudyPlan().task
GRID = [2 ** (power / 2) for power in range(-6, 7)]  # times the task's own rate
TUNING = range(900, 905)  # seed indices: those of a study count up from 0
FRESH = range(1000, 1020)


def first_command(seed: int, storage: str) -> float:
    """Seconds of the command, its start and its confirmation included."""
    command = [sys.executable, "-m", "clrsearch", "run", "--trials", "100", "--workers", "2"]
    started = time.perf_counter()
    subprocess.run(
        [*command, "--name", "first", "--seed", str(seed), "--device", "cpu", "--storage", storage],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(10)])
    asked = parser.parse_args()
    facts = parts(TASK)[1]
    choose = min if facts.direction == "minimize" else max
    constants = [Constant(lr=facts.base_lr * factor) for factor in GRID]
    print(f"| seed | s | recommended | {facts.metric} | constant rate | {facts.metric} | p |")
    print("|---|---|---|---|---|---|---|")
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            storage = f"sqlite:///{folder}/studies.db"
            seconds = first_command(seed, storage)
            found = service.best("first", storage=storage)
        with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
            jobs = [(TASK, constant, seed, index) for constant in constants for index in TUNING]
            judged = iter(pool.starmap(train, jobs, chunksize=1))
            means = {constant: mean(next(judged) for _ in TUNING) for constant in constants}
            tuned = choose(means, key=means.__getitem__)
            ours, theirs = (
                pool.starmap(train, [(TASK, each, seed, index) for index in FRESH], chunksize=1)
                for each in (found.schedule, tuned)
            )
        print(
            f"| {seed} | {seconds:.0f} | {found.trial.family} | {mean(ours):.5f} | {tuned.lr:.3g} "
            f"| {mean(theirs):.5f} | {ttest_rel(ours, theirs).pvalue:.1g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
