"""A task of a few numbers that takes as long as it is told to, and whose every random draw shows.

``FAULTS_EPOCH_SECONDS`` says how long an epoch lasts; each finished epoch adds a line to the file
that ``FAULTS_LOG`` names: when, and in which process.
"""

from __future__ import annotations

import os
import random
import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from clrsearch import Splits, Task

STEPS = 8  # per epoch


class Noisy(Task):
    """Fits a line with dropout, batch norm and noise from all three global generators."""

    metric = "error"
    direction = "minimize"
    epochs = 8
    batch_size = 8

    def data(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(128, 4, generator=generator)
        targets = inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])
        pairs = TensorDataset(inputs, targets)
        edges = (0, STEPS * self.batch_size, 96, 128)
        return Splits(*(TensorDataset(*pairs[a:b]) for a, b in pairwise(edges)))

    def model(self):
        layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        return nn.Sequential(*layers, nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)

    def augment(self, inputs):
        time.sleep(float(os.environ.get("FAULTS_EPOCH_SECONDS", "0")) / STEPS)
        return inputs * (1 + 0.01 * random.random()) + 0.01 * float(np.random.standard_normal())

    def loss(self, output, target):
        return mse_loss(output, target)

    def measure(self, output, target):
        return {"error": mse_loss(output, target, reduction="sum")}

    def evaluate(self, outputs, targets):
        path = os.environ.get("FAULTS_LOG")
        if path:
            with open(path, "a", encoding="utf-8") as log:
                log.write(f"{time.time()} {os.getpid()}\n")
        return {"largest": float((outputs - targets).abs().max())}
