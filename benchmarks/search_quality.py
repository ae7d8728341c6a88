"""Does the search beat chance? The leader of 60 trials against the best of 60 random ones.

Both come from the same space of the task ``digits`` and are chosen on the same seed; what counts is
the mean of each over fresh seeds. The random trials are never pruned.

    python benchmarks/search_quality.py --seeds 5
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

from clrsearch import service, trace
from clrsearch.schedules import Value
from clrsearch.search import ConfirmPlan, StudyPlan, build_space, suggest
from clrsearch.tasks import load_task
from clrsearch.training import Diverged, SequentialRun, TaskData, probe
from clrsearch.training.device import usable_cores

CPU = torch.device("cpu")
Params = Mapping[str, Value]


@cache
def task():
    torch.set_num_threads(1)
    loaded = load_task("digits", folder=Path())
    facts = probe(loaded, device=CPU)
    return (
        loaded.task,
        facts,
        TaskData(loaded.task, facts.batch_size, CPU),
        build_space(StudyPlan(), facts),
    )


def score(job: tuple[str, Params, int, int]) -> float:
    """The final validation cross-entropy of one run."""
    family, params, seed, seed_index = job
    digits, facts, data, space = task()
    run = SequentialRun(
        digits,
        facts,
        data,
        trace(space.build(family, params), facts.horizon, facts.ratios),
        seed=seed,
        seed_index=seed_index,
        device=CPU,
    )
    try:
        return [run.next_epoch() for _ in range(facts.epochs)][-1].metrics[facts.metric]
    except Diverged:
        return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--fresh", type=int, default=3)
    parser.add_argument("--pruner", choices=("lenient", "none"), default="lenient")
    asked = parser.parse_args()
    space = task()[3]
    print("seed | leader: search | fresh | random: search | fresh | winner")
    with (
        multiprocessing.get_context("spawn").Pool(usable_cores()) as pool,
        tempfile.TemporaryDirectory() as folder,
    ):
        for seed in range(asked.seeds):
            plan = StudyPlan(
                task="digits",
                seed=seed,
                trials=asked.trials,
                pruner=asked.pruner,
                confirm=ConfirmPlan(enabled=False),
            )
            found = service.run(plan, storage=f"sqlite:///{folder}/{seed}.db").snapshot.leader
            drawn = [
                suggest(
                    [], space.families["cyclic"], direction="minimize", seed=1000 * seed + index
                )
                for index in range(asked.trials)
            ]
            scores = pool.map(score, [("cyclic", params, seed, 0) for params in drawn], chunksize=4)
            lucky = min(range(asked.trials), key=scores.__getitem__)
            fresh = range(1, asked.fresh + 1)
            ours = pool.map(score, [(found.family, found.params, seed, i) for i in fresh])
            theirs = pool.map(score, [("cyclic", drawn[lucky], seed, i) for i in fresh])
            mean, chance = sum(ours) / len(ours), sum(theirs) / len(theirs)
            print(
                f"{seed} | {found.value:.4f} | {mean:.4f} | {scores[lucky]:.4f} | {chance:.4f} | "
                f"{'search' if mean < chance else 'random'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
