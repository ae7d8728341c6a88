"""The learning-rate range test: the losses while the rate rises from harmless to harmful.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clrsearch.tasks import Task, TaskFacts, task_code
from clrsearch.training.data import Batches
from clrsearch.training.feed import Feed
from clrsearch.training.learner import Learner
from clrsearch.training.optimizer import require_same
from clrsearch.training.precision import Precision
from clrsearch.training.seeding import (
    derive,
    random_state,
    restore_random_state,
    seed_everything,
)
from clrsearch.training.task_data import TaskData

LOWEST, HIGHEST = 1e-4, 1e3  # times the task's own rate
POINTS = 100  # rates, 14 per decade
STEPS = 2  # training steps per rate
SETTLING = 50  # steps at the lowest rate first, until batch-norm statistics have settled
SEEDS = 3
HOPELESS = 3.0  # a rise of the training loss by this multiple of its initial size ends the ramp
FIRST_SEED = 1_000_000
"""Seed indices from here on belong to the range test: a search uses 0, a confirmation 1, 2, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Losses over the P rising ``rates``, one curve per seed.

    A curve is shorter than P if the loss diverged.
    """

    rates: tuple[float, ...]
    training: tuple[tuple[float, ...], ...]
    validation: tuple[tuple[float, ...], ...]


def ramp(
    task: Task,
    facts: TaskFacts,
    data: TaskData,
    *,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
) -> Ramp:
    """Train fresh models at an exponentially rising rate, one for each of three seeds.

    The rate of the first group goes from 1e-4 to 1e3 times the task's own; the other groups keep
    their ratios to it. Recorded at each rate are the mean training loss of its two steps, followed
    by the loss on one validation batch, the same for all rates. Nothing is left behind: models and
    optimizers are discarded, and the global random generators are restored.

    Raises:
        TaskRaised: the task's own code raised.
    """
    rates = np.geomspace(facts.base_lr * LOWEST, facts.base_lr * HIGHEST, POINTS).tolist()
    before = random_state(device)
    try:
        with task_code("testing a range of rates"):
            curves = [
                _curves(task, facts, data, rates, (seed, FIRST_SEED + index), device, precision)
                for index in range(SEEDS)
            ]
    finally:
        restore_random_state(before, device)
    return Ramp(
        rates=tuple(rates),
        training=tuple(training for training, _ in curves),
        validation=tuple(validation for _, validation in curves),
    )


def _curves(
    task: Task,
    facts: TaskFacts,
    data: TaskData,
    rates: list[float],
    seed: tuple[int, int],
    device: torch.device,
    precision: Precision,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The training and validation losses of one seed, up to where it diverges."""
    seed_everything(derive(*seed, "init"))
    learner = Learner(task, device, precision)
    require_same(learner.optimizer, facts)
    feed = Feed(data.train, task.accumulate, seed)
    sample = _sample(data.validation)
    seed_everything(derive(*seed, "epoch"))

    def step(rate: float) -> float:
        learner.model.train()
        for group, ratio in zip(learner.optimizer.param_groups, facts.ratios, strict=True):
            group["lr"] = rate * ratio
        return learner.step(feed.draw()).item()

    start = sum(step(rates[0]) for _ in range(SETTLING)) / SETTLING
    training: list[float] = []
    validation: list[float] = []
    for rate in rates:
        trained = sum(step(rate) for _ in range(STEPS)) / STEPS
        validated = learner.validation_loss(sample)
        if not (math.isfinite(trained) and math.isfinite(validated)):
            break
        training.append(trained)
        validation.append(validated)
        if trained - start > HOPELESS * abs(start):
            break
    return tuple(training), tuple(validation)


def _sample(validation: Batches) -> Any:
    """One random batch of the split (its order may be by class), or all of it if it is smaller."""
    drawn = next(validation.shuffled(0), None)
    return next(validation.in_order()) if drawn is None else drawn
