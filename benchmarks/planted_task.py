"""Two tasks of which it is known beforehand what the best schedule is; see ``planted.toml``.

``Planted``: a quadratic with noisy gradients. Under a rate that stays above zero the weights keep
shaking around the minimum, the more the higher the rate; under one that falls to zero they settle.
``Equal``: every schedule is as good as any other, and what a run scores is chance.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from clrsearch import Splits, Task

STEPS = 32  # per epoch
DIMENSIONS = 64
SPREAD = 0.1  # of a run's score, where all schedules are equal


class Planted(Task):
    """Finds the mean of some points from batches of them: loss = |w - x|^2 / 2.

    The mean is zero, so that the error, the mean square of the weights, is zero at the minimum.
    """

    metric = "error"
    direction = "minimize"
    epochs = 8
    batch_size = 8

    def data(self):
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(STEPS * self.batch_size, DIMENSIONS, generator=generator)
        train = TensorDataset(torch.ones(len(points), 1), points - points.mean(dim=0))
        minimum = TensorDataset(torch.ones(1, 1), torch.zeros(1, DIMENSIONS))
        return Splits(train, minimum, minimum)

    def model(self):
        return nn.Linear(1, DIMENSIONS, bias=False)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.2)

    def loss(self, output, target):
        return mse_loss(output, target, reduction="sum") / (2 * len(target))

    def measure(self, output, target):
        return {"error": mse_loss(output, target, reduction="sum") / DIMENSIONS}


class Equal(Planted):
    """The same training, but the score is drawn anew for each schedule and each seed.

    It is normal around 1, and drawn by a generator that the bits of the weights seed, so that the
    same run scores the same again.
    """

    metric = "score"

    def evaluate(self, outputs, targets):
        digest = hashlib.sha256(outputs.numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4]))
        return {"score": 1.0 + SPREAD * torch.randn((), generator=generator).item()}
