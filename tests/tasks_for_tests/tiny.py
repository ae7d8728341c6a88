"""Tasks that train in milliseconds, good ones and bad ones."""

import os
import random
import time
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from clrsearch import Splits, Task


class Tiny(Task):
    """Fits a line in four dimensions; 4 epochs of 4 steps."""

    metric = "error"
    direction = "minimize"
    epochs = 4
    batch_size = 8

    class Options(Task.Options):
        optimizer: Literal["sgd", "plain", "adam"] = "sgd"

    options: Options

    def data(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(56, 4, generator=generator)
        targets = inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0])
        pairs = TensorDataset(inputs, targets)
        return Splits(*(TensorDataset(*pairs[a:b]) for a, b in ((0, 34), (34, 46), (46, 56))))

    def model(self):
        return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))

    def optimizer(self, model):
        match self.options.optimizer:
            case "sgd":
                return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
            case "plain":
                return torch.optim.SGD(model.parameters(), lr=0.02)
            case "adam":
                return torch.optim.Adam(model.parameters(), lr=0.02)

    def loss(self, output, target):
        return mse_loss(output, target)

    def measure(self, output, target):
        return {
            "error": mse_loss(output, target, reduction="sum"),
            "close": ((output - target).abs() < 0.5).sum(),
        }


class Headed(Tiny):
    """A body and a head, which learns ten times as fast."""

    def model(self):
        return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1), nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.SGD(
            [
                {"params": model[0].parameters(), "lr": 0.002, "name": "body"},
                {"params": model[1].parameters(), "lr": 0.02, "name": "head"},
            ],
            momentum=0.9,
        )


class Slow(Tiny):
    """Takes a fifth of a second per batch, so that there is time to interrupt it."""

    def loss(self, output, target):
        time.sleep(0.2)
        return super().loss(output, target)


class Noisy(Tiny):
    """Draws from every generator while it trains, and has a batch norm."""

    def model(self):
        layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        return nn.Sequential(*layers, nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)

    def augment(self, inputs):
        return inputs + 0.1 * torch.randn_like(inputs) + 0.1 * (np.random.rand() - random.random())


class Paced(Noisy):
    """8 epochs of a fifth of a second each."""

    epochs = 8

    def loss(self, output, target):
        time.sleep(0.05)
        return super().loss(output, target)


class Gated(Paced):
    """The same, but does not end its fifth epoch before the file CLRSEARCH_TEST_GATE is there."""

    def model(self):
        self.batches = 0
        return super().model()

    def loss(self, output, target):
        self.batches += 1
        while self.batches > 16 and not os.path.exists(os.environ["CLRSEARCH_TEST_GATE"]):
            time.sleep(0.01)
        return super().loss(output, target)


class NoisyListed(Noisy):
    """The same with data that goes through a DataLoader, and that draws as well."""

    def data(self):
        return Splits(*(Jittered(split) for split in super().data()))


class Grouped(Tiny):
    """Two parameter groups, the second with ten times the rate of the first."""

    def optimizer(self, model):
        weight, bias = model.parameters()
        return torch.optim.SGD(
            [
                {"params": [weight], "lr": 0.02, "name": "weight"},
                {"params": [bias], "lr": 0.2, "name": "bias"},
            ],
            lr=0.02,
            momentum=0.9,
        )


class Explodes(Tiny):
    """Its loss is infinite from the second epoch on."""

    def model(self):
        self.steps = 0
        return super().model()

    def loss(self, output, target):
        self.steps += 1
        return super().loss(output, target) * (float("inf") if self.steps > 6 else 1.0)


class FailsLater(Tiny):
    """Raises in the second epoch: trying it out shows nothing."""

    def model(self):
        self.batches = 0
        return super().model()

    def loss(self, output, target):
        self.batches += 1
        if self.batches == 6:
            raise KeyError("no such column")
        return super().loss(output, target)


class FailsAtOnce(Tiny):
    """Raises in the first batch."""

    def loss(self, output, target):
        return output.no_such_method()


class NanMetric(Tiny):
    """Its validation metric is not a number."""

    def measure(self, output, target):
        return {"error": torch.tensor(float("nan"))}


class LongMetric(Tiny):
    """Its validation metric is not summed."""

    def measure(self, output, target):
        return {"error": (output - target) ** 2}


class NoOptimizer(Tiny):
    """Forgets to return its optimizer."""

    def optimizer(self, model):
        torch.optim.SGD(model.parameters(), lr=0.1)


class WrongDirection(Tiny):
    """Spells its direction in another way."""

    direction = "minimise"


class NoEpochs(Tiny):
    """Trains for no epochs."""

    epochs = 0


class TextMetric(Tiny):
    """Its validation metric is a text."""

    def measure(self, output, target):
        return {"error": "good"}


class OtherMetric(Tiny):
    """Measures something else than it says."""

    metric = "accuracy"


class TooFew(Tiny):
    """Its batches are larger than its data."""

    batch_size = 100


class NotConstructed(Tiny):
    """Its constructor raises."""

    def __init__(self, options=None):
        raise ValueError("the data folder is missing")


class Ranked(Tiny):
    """Has a metric of the whole split beside the means."""

    metric = "largest"

    def evaluate(self, outputs, targets):
        return {"largest": (outputs - targets).abs().max()}


class Halves(Tiny):
    """The data of Tiny as a dataset that is no TensorDataset."""

    def data(self):
        return Splits(*(Listed(split) for split in super().data()))


class Listed(torch.utils.data.Dataset):
    """Any indexed dataset."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        return self.split[index]


class Jittered(Listed):
    """Random at each reading, as an augmentation in a dataset is."""

    def __getitem__(self, index):
        inputs, target = self.split[index]
        return inputs + 0.01 * torch.randn(()), target


class Incomplete(Task):
    """Says neither its metric nor its direction."""

    epochs = 4
    batch_size = 8


not_a_task = 3


def hand_written(step, steps_per_epoch):
    """0.05 in the first epoch, and a fifth of that in the others."""
    return 0.05 if step < steps_per_epoch else 0.01


def negative_later(step, steps_per_epoch):
    """Wrong from the eleventh epoch on."""
    return 0.1 if step < 10 * steps_per_epoch else -0.1


def raises_later(step, steps_per_epoch):
    """The usual mistake: a list that is too short."""
    return [0.1, 0.1, 0.1][step]


class Deaf(Tiny):
    """Learns nothing: its loss does not depend on the weights."""

    def loss(self, output, target):
        return mse_loss(output * 0, target * 0 + 1)
