"""Tasks that are trained in lanes, and ways in which that goes wrong."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from clrsearch import Splits, Task


class Line(Task):
    """Fits a line; 6 epochs of 4 steps."""

    metric = "error"
    direction = "minimize"
    epochs = 6
    batch_size = 8

    def data(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(66, 4, generator=generator)
        targets = inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])
        pairs = TensorDataset(inputs, targets)
        return Splits(*(TensorDataset(*pairs[a:b]) for a, b in ((0, 34), (34, 51), (51, 66))))

    def model(self):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)

    def loss(self, output, target):
        return mse_loss(output, target)

    def measure(self, output, target):
        return {"error": mse_loss(output, target, reduction="sum")}


class Paced(Line):
    """A tenth of a second per step, whatever the number of lanes."""

    def loss(self, output, target):
        time.sleep(0.1)
        return super().loss(output, target)


class Counted(Line):
    """Counts its validations; two of them try out whether it can be trained in lanes."""

    def data(self):
        self.validations = 0
        return super().data()

    def measure(self, output, target):
        self.validations += 1
        return super().measure(output, target)


class Killed(Counted):
    """Is killed in its fourth epoch in lanes, unless the file CLRSEARCH_TEST_KILLED is there."""

    def loss(self, output, target):
        killed = Path(os.environ["CLRSEARCH_TEST_KILLED"])
        if self.validations >= 5 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(output, target)


class FailsInLanes(Counted):
    """Fails in the third epoch in lanes, and only there."""

    def loss(self, output, target):
        if self.validations >= 4 and torch._C._functorch.is_functorch_wrapped_tensor(output):
            raise RuntimeError("cannot be done in lanes")
        return super().loss(output, target)


class TooLarge(Counted):
    """Finds no memory in the third epoch in lanes."""

    def loss(self, output, target):
        if self.validations >= 4 and torch._C._functorch.is_functorch_wrapped_tensor(output):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(output, target)


class Fails(Counted):
    """Fails in the third epoch in lanes, and ever after."""

    def loss(self, output, target):
        if self.validations >= 4:
            raise KeyError("no such column")
        return super().loss(output, target)
