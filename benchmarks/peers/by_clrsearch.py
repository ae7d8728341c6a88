"""clrsearch, as one runs it."""

from __future__ import annotations

from collections.abc import Mapping

from clrsearch import service
from clrsearch.schedules import Schedule
from clrsearch.search import StudyPlan
from clrsearch.worker import WorkerSettings
from peers.job import WORKERS


def search(task: str, seed: int, folder: str, keys: Mapping[str, object]) -> tuple[Schedule, int]:
    """What it recommends, and how many runs it has trained for that, its confirmation included.

    ``keys`` are those of the plan that differ from the usual ones.
    """
    storage = f"sqlite:///{folder}/studies.db"
    plan = StudyPlan(**({"task": task, "seed": seed} | dict(keys)))
    found = service.run(
        plan, name="mine", storage=storage, workers=WORKERS, settings=WorkerSettings(device="cpu")
    ).snapshot
    runs = len(found.records) + len(found.confirmed.runs)
    return service.best("mine", storage=storage).schedule, runs
