"""What few starts save a search: epochs that are not trained, and what they cost in score.

A search of wsd schedules, three times for each study seed: as it is, with few starts (``trunks``)
but each trial trained from its first step, and with few starts and shared beginnings. The
recommended schedule is then trained on fresh seeds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from clrsearch import service
from clrsearch.schedules import Trace
from clrsearch.search import Study, load_plan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import computing, run_maker
from clrsearch.worker import WorkerSettings

CPU = torch.device("cpu")
FRESH = range(900_000, 900_010)  # seeds that no search uses
WAYS = {"free": (None, 0.0), "few starts": (6, 0.0), "few starts, shared": (6, 10.0)}


def main() -> None:
    """Print a row for each study, and the paired difference of the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="denoise")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--studies", type=int, default=3)
    asked = parser.parse_args()
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    print("| study seed | | epochs trained | s | score on 10 fresh seeds |\n|---|---|---|---|---|")
    for seed in range(asked.studies):
        for way, (trunks, gigabytes) in WAYS.items():
            epochs, seconds, score = searched(asked.task, asked.trials, seed, trunks, gigabytes)
            scores[way].append(score)
            print(f"| {seed} | {way} | {epochs} | {seconds:.1f} | {score:.5g} |", flush=True)
    difference = np.subtract(scores["few starts"], scores["free"])
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    print(f"few starts cost {difference.mean():+.2g} of the score (+-{half:.2g}, 95 %)")


def searched(
    task: str, trials: int, seed: int, trunks: int | None, gigabytes: float
) -> tuple[int, float, float]:
    """The epochs that a search trains, its seconds, and the score of what it recommends."""
    plan = load_plan(
        None,
        {
            "task": task,
            "trials": trials,
            "seed": seed,
            "families": ["wsd"],
            "seeds": 2,
            "trunks": trunks,
            "confirm.enabled": False,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        url = StorageUrl(f"sqlite:///{Path(folder) / 'studies.db'}")
        settings = WorkerSettings(device="cpu", trunk_gb=gigabytes)
        began = time.monotonic()
        service.run(plan, name="one", storage=url, workers=0, settings=settings)
        seconds = time.monotonic() - began
        with open_database(url) as database:
            study = Study.open(database, "one")
            records = study.history.records()
            best = service.best("one", storage=url).trial
            trained = sum(record.epoch - record.inherited for record in records)
            return trained, seconds, fresh_score(study, study.trace(best.family, best.params))


def fresh_score(study: Study, trace: Trace) -> float:
    """The mean score of a schedule on the fresh seeds."""
    facts = study.facts
    task = load_task(study.plan.task, folder=Path()).task
    with computing(CPU):
        make = run_maker(task, facts, CPU, seed=study.plan.seed)
        found = []
        for index in FRESH:
            last: list[float] = []
            make(trace, seed=study.plan.seed, seed_index=index).train(
                lambda epoch, last=last: last.append(epoch.metrics[facts.metric]) or True
            )
            found.append(last[-1])
    return float(np.mean(found))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
