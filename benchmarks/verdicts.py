"""Is the right family named? Comparisons of which it is known beforehand who wins, or that nobody.

Whole comparisons, as `clrsearch compare` makes them: search, confirmation on fresh seeds, verdict.
The tasks and the plan are in `planted_task.py` and `planted.toml`. One worker per study, so that a
study of the same seed comes out the same. How far ahead the planted family is, is measured on 50
further seeds, which the verdict does not see.

    python benchmarks/verdicts.py --seeds 10
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from clrsearch import service
from clrsearch.search import Study, Verdict, load_plan
from clrsearch.storage import open_database
from clrsearch.tasks import Task, load_task
from clrsearch.training import SequentialRun, TaskData
from clrsearch.training.device import one_thread
from clrsearch.worker import WorkerSettings

HERE = Path(__file__).parent
CPU = torch.device("cpu")
PLANTED, NOBODY = "linear", "none"
FURTHER = range(11, 61)  # seed indices behind those of the confirmation


def compare(task: str, seed: int, folder: str) -> service.Result:
    """One comparison."""
    plan = load_plan(HERE / "planted.toml", {"task": f"planted_task.py:{task}", "seed": seed})
    return service.run(
        service.comparison(plan, task_dir=HERE).plan,
        name=task,
        storage=f"sqlite:///{folder}/{seed}.db",
        workers=1,
        settings=WorkerSettings(device="cpu", task_dir=HERE),
    )


def verdict_of(result: service.Result) -> Verdict:
    """What the fresh seeds said."""
    confirmed = result.snapshot.confirmed
    assert confirmed is not None and confirmed.verdict is not None
    return confirmed.verdict


def named(verdict: Verdict) -> str:
    """The family that is said to be best, or nobody."""
    return verdict.winner or NOBODY


def gap(result: service.Result) -> float:
    """How far the planted family is ahead of the next one, in standard deviations of one seed.

    That is the root of the mean variance of a finalist's scores over the seeds.
    """
    with open_database(result.storage) as database, one_thread(CPU):
        study = Study.open(database, result.snapshot.name)
        task = load_task(study.plan.task, folder=HERE).task
        data = TaskData(task, study.facts.batch_size, CPU)
        scores = {
            each.family: [score(study, task, data, each.trial, index) for index in FURTHER]
            for each in verdict_of(result).standings
        }
    means = {family: statistics.mean(values) for family, values in scores.items()}
    ahead = min(mean for family, mean in means.items() if family != PLANTED) - means[PLANTED]
    return float(ahead / statistics.mean(map(statistics.variance, scores.values())) ** 0.5)


def score(study: Study, task: Task, data: TaskData, trial: int, seed_index: int) -> float:
    """What a trial's schedule scores on one seed."""
    record = study.trial(trial)
    run = SequentialRun(
        task,
        study.facts,
        data,
        study.trace(record.family, record.params),
        seed=study.plan.seed,
        seed_index=seed_index,
        device=CPU,
    )
    epochs = [run.next_epoch() for _ in range(study.facts.epochs)]
    return epochs[-1].metrics[study.facts.metric]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    print("| study seed | planted: gap in seed sd | named | equal: named |")
    print("|---|---|---|---|")
    right = silent = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            planted, equal = (compare(task, seed, folder) for task in ("Planted", "Equal"))
            winner, nobody = named(verdict_of(planted)), named(verdict_of(equal))
            right += winner == PLANTED
            silent += nobody == NOBODY
            print(f"| {seed} | {gap(planted):.1f} | {winner} | {nobody} |", flush=True)
    print(f"{PLANTED} is named in {right} of {seeds}, nobody in {silent} of {seeds}")
    if min(right, silent) < 0.9 * seeds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
