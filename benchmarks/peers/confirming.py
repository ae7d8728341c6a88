"""Time to a confirmed schedule: `clrsearch run`, and what one writes by hand around its peers.

From the start of a command until it names a schedule: the same model, training code, space and
number of trials, two processes each. *Confirmed* is a schedule that, by the command's own test
(p < 0.05), beats the tuned constant rate on seeds that the search has not seen; a command whose
test says nothing ends unconfirmed. `clrsearch run` does this by itself; `by_hand.py` is the loop
that the others need. Afterwards, and not counted, each named schedule is held against the best
constant rate on ten further seeds, the same for all. The commands take turns. From `benchmarks/`:

    pip install 'ray[tune]'
    python -m peers.confirming --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from scipy.stats import ttest_rel

from clrsearch import service
from clrsearch.schedules import FAMILIES, Constant, Schedule
from clrsearch.search import StudyPlan
from clrsearch.search.anytime_tests import LEVEL
from peers.job import WORKERS, parts, train

TASK = StudyPlan().task
OURS = "clrsearch"
TOOLS = (OURS, "Optuna", "Ray Tune")
TUNED = Constant(lr=0.01)  # which first_command.py found best of a grid, for each study seed
FURTHER = range(1000, 1010)  # seed indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a command has named, after how many seconds and runs."""

    schedule: Schedule
    confirmed: bool
    seconds: float
    runs: int


def by_clrsearch(trials: int, seed: int) -> Named:
    """The verdict and the recommended schedule of `clrsearch run`."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/studies.db"
        command = ["clrsearch", "run", "--task", TASK, "--trials", str(trials), "--name", "mine"]
        where = ["--workers", str(WORKERS), "--device", "cpu", "--storage", storage]
        seconds, _ = timed([*command, *where, "--seed", str(seed)])
        found = service.show("mine", storage=storage).snapshot
        verdict, baseline = found.confirmed.verdict, found.confirmed.baseline
        p = verdict.standing(baseline).p
        return Named(
            schedule=service.best("mine", storage=storage).schedule,
            confirmed=verdict.chosen != baseline and p is not None and p < LEVEL,
            seconds=seconds,
            runs=len(found.records) + len(found.confirmed.runs),
        )


def by_hand(tool: str, trials: int, seed: int) -> Named:
    """What the script around a peer names."""
    command = ["peers.by_hand", tool, "--task", TASK, "--trials", str(trials), "--seed", str(seed)]
    seconds, output = timed(command)
    said = json.loads(output.splitlines()[-1])
    return Named(
        schedule=FAMILIES[said["family"]](**said["values"]),
        confirmed=said["confirmed"],
        seconds=seconds,
        runs=said["runs"],
    )


def on_further_seeds(schedule: Schedule, seed: int) -> list[float]:
    """The scores of a schedule on seeds that no command has seen."""
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        jobs = [(TASK, schedule, seed, index) for index in FURTHER]
        return pool.starmap(train, jobs, chunksize=1)


def timed(module: Sequence[str]) -> tuple[float, str]:
    """The seconds and the output of a module that is run as a command."""
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", *module],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return time.perf_counter() - started, ran.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=StudyPlan().trials)
    parser.add_argument("--tools", nargs="+", default=TOOLS)
    asked = parser.parse_args()
    metric = parts(TASK)[1].metric
    found: dict[str, list[Named]] = {tool: [] for tool in asked.tools}
    scores: dict[str, list[float]] = {tool: [] for tool in asked.tools}
    print(f"| seed | who | load | s | runs | named | confirmed | {metric} | constant | p |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for seed in asked.seeds:
        constant = on_further_seeds(TUNED, seed)
        for tool in asked.tools:
            load = os.getloadavg()[0]
            search = by_clrsearch if tool == OURS else (lambda *given, t=tool: by_hand(t, *given))
            named = search(asked.trials, seed)
            further = on_further_seeds(named.schedule, seed)
            found[tool].append(named)
            scores[tool].append(mean(further))
            seen = (f"{mean(further):.5f}", f"{mean(constant):.5f}")
            p = f"{ttest_rel(further, constant).pvalue:.1g}"
            what = (f"{load:.1f}", f"{named.seconds:.0f}", named.runs, named.schedule.family)
            row = (seed, tool, *what, "yes" if named.confirmed else "no", *seen, p)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    print(f"\n| | s, median (range) | confirmed | {metric} of the named, mean |\n|---|---|---|---|")
    for tool, all_named in found.items():
        seconds = [named.seconds for named in all_named]
        took = f"{median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"
        confirmed = f"{sum(each.confirmed for each in all_named)} of {len(all_named)}"
        print(f"| {tool} | {took} | {confirmed} | {mean(scores[tool]):.5f} |")


if __name__ == "__main__":
    main()
