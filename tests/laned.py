"""Small jobs to train in lanes and alone, under random traces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from clrsearch.schedules import Trace
from clrsearch.tasks import LoadedTask, Splits, Task, TaskFacts
from clrsearch.training import Lanes, SequentialRun, TaskData, probe
from clrsearch.training.lane_learner import LaneLearner

CPU = torch.device("cpu")
CLASSES, EPOCHS, SEED = 5, 3, 7


class Job(Task):
    metric, direction, epochs, batch_size = "loss", "minimize", EPOCHS, 16
    shape: tuple[int, ...] = (12,)

    def split(self, seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(70, *self.shape, generator=generator)
        return TensorDataset(inputs, torch.randint(CLASSES, (70,), generator=generator))

    def data(self):
        return Splits(self.split(0), self.split(1), self.split(2))

    def model(self):
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def optimizer(self, model):
        return torch.optim.SGD(self.groups(model), momentum=0.9, nesterov=True, weight_decay=1e-2)

    def groups(self, model):
        """The first layer, and the others at a tenth of its rate without a weight decay."""
        first, second, *others = model.parameters()
        slow = {"params": others, "lr": 0.01, "weight_decay": 0.0}
        return [{"params": [first, second], "lr": 0.1}, slow]

    def loss(self, output, target):
        return cross_entropy(output, target)

    def measure(self, output, target):
        wrong = (output.argmax(1) != target).sum()
        return {"loss": cross_entropy(output, target, reduction="sum"), "error": wrong}


class Images(Job):
    shape = (3, 8, 8)

    def model(self):
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Flatten()),
            nn.Linear(32, CLASSES),
        )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs):
        return self.head(self.layer(inputs).mean(1))


class Words(Job):
    shape = (6, 8)

    def model(self):
        return Attention()


class Workshop:
    """A task with its facts and data, and runs of it under random traces."""

    def __init__(self, kind: type[Task] = Job, **changes: Any) -> None:
        self.task = type("Changed", (kind,), changes)()
        self.facts: TaskFacts = probe(LoadedTask(self.task, "here"), device=CPU)
        assert self.facts.batch_size is not None
        self.data = TaskData(self.task, self.facts.batch_size, CPU, seed=SEED)

    def trace(self, seed: int, top: float = 0.05) -> Trace:
        """Random rates, and random momenta where the seed is odd."""
        generator, steps = np.random.default_rng(seed), self.facts.horizon
        rates = np.outer(self.facts.ratios, generator.uniform(0.001, top, steps))
        momenta = None
        if seed % 2 and self.facts.momentum != "none":
            momenta = np.stack([generator.uniform(0.8, 0.95, steps)] * len(rates))
        return Trace(rates=rates, momenta=momenta)

    def lanes(self, size: int, **how: Any) -> Lanes:
        plays = self.facts.momentum != "none"
        learner = LaneLearner(self.task, size, CPU, plays_momentum=plays, **how)
        return Lanes(self.task, self.facts, self.data, learner, device=CPU)

    def alone(self, trace: Trace, seed_index: int = 0, **how: Any) -> SequentialRun:
        return SequentialRun(
            self.task,
            self.facts,
            self.data,
            trace,
            seed=SEED,
            seed_index=seed_index,
            device=CPU,
            **how,
        )
