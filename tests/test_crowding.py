"""How many processes share a device: decided by paces, and tried out here on a CPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from running import begin

from clrsearch import service
from clrsearch.errors import PlanError, TaskError
from clrsearch.search import Study
from clrsearch.service import crowding
from clrsearch.service.tryout import Pace
from clrsearch.storage import open_database
from clrsearch.training import fewest
from clrsearch.worker import WorkerSettings


def crowd(url, task_dir, most: int) -> tuple[int, str]:
    with open_database(url) as database:
        study = Study.open(database, "mine")
        return crowding.crowd(study, WorkerSettings(task_dir=task_dir), "cpu", most=most)


@pytest.mark.parametrize(
    "plan",
    [
        {"task": "side_by_side.py:Paced"},
        {"task": "loops.py:train", "epochs": 4, "metric": "error", "direction": "minimize"},
    ],
)
def test_processes_are_tried_out_together(url, task_dir, monkeypatch, plan) -> None:
    monkeypatch.setattr(crowding, "SECONDS", 0.5)
    begin(url, task_dir, **plan)
    count, reason = crowd(url, task_dir, 2)
    assert count in (1, 2)
    assert reason.startswith((f"{count} worker per device (", f"{count} workers per device ("))
    assert crowd(url, task_dir, 1) == (1, "1 worker per device")


PACES = [
    ({1: 10.0}, 1),
    ({1: 10.0, 2: 19.0, 4: 20.0}, 2),  # 2 are at 95 % of what 4 reach
    ({1: 10.0, 2: 15.0, 4: 20.0}, 4),
    ({1: 10.0, 2: 9.0}, 1),
]


@pytest.mark.parametrize(("paces", "count"), PACES)
def test_no_more_than_are_needed_for_the_pace(paces, count) -> None:
    assert fewest(paces) == count


class Loaded(nullcontext[Any]):
    """A task that is loaded."""

    def __enter__(self) -> Any:
        return self

    def pace(self, facts, seconds) -> None: ...


def test_processes_must_have_room(url, task_dir, monkeypatch) -> None:
    """Each takes 3 GB: with two there, 5 GB are left, so that four do not fit."""
    begin(url, task_dir)
    found = {1: 12e9, 2: 5e9}
    together = lambda study, tryouts: [  # noqa: E731
        Pace(pace=10.0, taken=3e9, free=found[len(tryouts)]) for _ in tryouts
    ]
    monkeypatch.setattr(crowding, "_together", together)
    monkeypatch.setattr(crowding, "_tryout", lambda *_: Loaded())
    assert crowd(url, task_dir, 8) == (
        2,
        "2 workers per device (times as fast as one: 2.0 with 2)",
    )


def test_one_that_finds_no_memory_ends_the_trying(url, task_dir, monkeypatch) -> None:
    begin(url, task_dir)

    def together(study, tryouts):
        if len(tryouts) > 1:
            raise TaskError("OutOfMemoryError: CUDA out of memory")
        return [Pace(pace=10.0, taken=1e9, free=9e9)]

    monkeypatch.setattr(crowding, "_together", together)
    monkeypatch.setattr(crowding, "_tryout", lambda *_: Loaded())
    assert crowd(url, task_dir, 8) == (1, "1 worker per device")


def test_a_gpu_is_needed_and_at_hand(clrsearch, url, task_dir) -> None:
    begin(url, task_dir)
    workers = service.Workers(
        count=2, per_gpu="auto", settings=WorkerSettings(task_dir=task_dir, device="cpu")
    )
    with pytest.raises(PlanError, match="how many workers are worth it, but there is no GPU here"):
        service.launch_local("mine", workers, storage=url)
    for launched in (service.launch_ray, lambda *given: service.launch_slurm(*given, minutes=60)):
        with pytest.raises(PlanError, match="these run on others: try it with launch local on one"):
            launched("mine", workers)
    code, _, errors = clrsearch("launch", "local", "mine", "--workers", "2", "--per-gpu", "all")
    assert code == 2 and "choose auto or a number, not 'all'" in errors
