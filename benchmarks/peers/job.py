"""What every peer is given: a task to train under a schedule, and the space of schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from clrsearch import trace
from clrsearch.schedules import Schedule
from clrsearch.search import StudyPlan, build_space
from clrsearch.tasks import load_task
from clrsearch.training import Diverged, SequentialRun, TaskData, probe

CPU = torch.device("cpu")
WORKERS = 2


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
    """The last value of the metric; the worst there is where the run diverged."""
    task, facts, data, _ = parts(name)
    rates = trace(schedule, facts.horizon, facts.ratios)
    run = SequentialRun(task, facts, data, rates, seed=seed, seed_index=seed_index, device=CPU)
    value = math.nan
    try:
        for epoch in range(1, facts.epochs + 1):
            value = run.next_epoch().metrics[facts.metric]
            report(epoch, value)
    except Diverged:
        return math.inf if facts.direction == "minimize" else -math.inf
    return value
