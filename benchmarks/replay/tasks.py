"""The small tasks that are recorded: data that ship with scikit-learn, and multi-layer perceptrons.

Each is small enough that hundreds of runs are trained at once on one thread, and different from the
others in what a schedule has to do: fit little data, resist wrong labels, follow a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from clrsearch.tasks import TaskFacts

MOMENTUM = 0.9
"""Of every task's SGD, where a schedule does not cycle it."""
NOISE = 0.3  # standard deviation of what is added to the pixels that are to be restored
WRONG = 0.25  # the share of wrong labels
TEACHER_NOISE = 0.1
WINDOW = 8  # characters that predict the next one
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long a task is trained, and by which SGD."""

    epochs: int
    batch_size: int = 32
    lr: float
    nesterov: bool = True
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallTask:
    """What is trained by SGD; the metric is the mean loss on the validation data, less is better.

    ``model`` builds the network under torch's global seed. ``train`` and ``validation`` are inputs
    and targets. ``batch`` makes one batch out of rows of the training data and a generator, for
    tasks that draw something anew; without it a batch is the rows as they are.
    """

    name: str
    training: Training
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    train: Batch
    validation: Batch
    batch: Callable[[Batch, torch.Generator], Batch] = lambda rows, generator: rows

    @property
    def facts(self) -> TaskFacts:
        """What a search knows of it."""
        return TaskFacts(
            metric="loss",
            direction="minimize",
            epochs=self.training.epochs,
            batch_size=self.training.batch_size,
            steps_per_epoch=len(self.train[0]) // self.training.batch_size,
            ratios=(1.0,),
            groups=("0",),
            base_lr=self.training.lr,
            momentum="momentum",
            optimizer=f"SGD, momentum {MOMENTUM}",
            source="",
        )

    def batches(self, seed: int) -> Iterator[Batch]:
        """All batches of a run; every epoch takes the training data in a new order."""
        generator = torch.Generator().manual_seed(seed)
        inputs, targets = self.train
        for _ in range(self.training.epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for rows in order.split(self.training.batch_size)[: self.facts.steps_per_epoch]:
                yield self.batch((inputs[rows], targets[rows]), generator)


def _perceptron(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def _split(inputs: np.ndarray, targets: np.ndarray, train: int) -> tuple[Batch, Batch]:
    """Standardised inputs, a fixed split."""
    one, other, its, others = train_test_split(inputs, targets, train_size=train, random_state=0)
    mean, deviation = one.mean(axis=0), one.std(axis=0) + 1e-8
    kind = torch.long if targets.dtype.kind == "i" else torch.float32
    return tuple(
        (
            torch.tensor((rows - mean) / deviation, dtype=torch.float32),
            torch.tensor(wanted, dtype=kind),
        )
        for rows, wanted in ((one, its), (other, others))
    )


def _digits() -> tuple[Batch, Batch]:
    images, labels = datasets.load_digits(return_X_y=True)
    one, other, its, others = train_test_split(
        images / 16, labels, train_size=1024, stratify=labels, random_state=0
    )
    return (
        (torch.tensor(one, dtype=torch.float32), torch.tensor(its)),
        (torch.tensor(other, dtype=torch.float32), torch.tensor(others)),
    )


def wrong_labels() -> SmallTask:
    """Digits of which a quarter are labelled at random; validated on right labels."""
    (inputs, labels), validation = _digits()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < WRONG
    drawn = torch.randint(10, (len(labels),), generator=generator)
    return SmallTask(
        name="wrong-labels",
        training=Training(epochs=12, lr=0.05),
        model=lambda: _perceptron(64, 64, 10),
        loss=functional.cross_entropy,
        train=(inputs, torch.where(wrong, drawn, labels)),
        validation=validation,
    )


def denoiser() -> SmallTask:
    """Digits restored from pixels with noise, drawn anew for every batch."""
    (inputs, _), (held_out, _) = _digits()

    def noisy(rows: Batch, generator: torch.Generator) -> Batch:
        clean, _ = rows
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        return clean + NOISE * noise, clean

    return SmallTask(
        name="denoiser",
        training=Training(epochs=16, lr=0.3),
        model=lambda: _perceptron(64, 48, 64),
        loss=functional.mse_loss,
        train=(inputs, inputs),
        validation=noisy((held_out, held_out), torch.Generator().manual_seed(1)),
        batch=noisy,
    )


def tumours() -> SmallTask:
    """Malign or benign, by 30 measures of a cell: little data, fitted within a few epochs."""
    inputs, labels = datasets.load_breast_cancer(return_X_y=True)
    train, validation = _split(inputs, labels, 320)
    return SmallTask(
        name="tumours",
        training=Training(epochs=10, batch_size=16, lr=0.02, nesterov=False, weight_decay=1e-3),
        model=lambda: _perceptron(30, 32, 16, 2),
        loss=functional.cross_entropy,
        train=train,
        validation=validation,
    )


def diabetes() -> SmallTask:
    """How far diabetes will progress within a year, by ten measures: mostly noise."""
    inputs, progress = datasets.load_diabetes(return_X_y=True)
    progress = (progress - progress.mean()) / progress.std()
    train, validation = _split(inputs, progress[:, None], 320)
    return SmallTask(
        name="diabetes",
        training=Training(epochs=20, batch_size=16, lr=0.01, weight_decay=1e-3),
        model=lambda: _perceptron(10, 32, 16, 1, activation=nn.Tanh),
        loss=functional.mse_loss,
        train=train,
        validation=validation,
    )


def student() -> SmallTask:
    """A stream of a random network's answers, learned by a larger one."""
    generator = torch.Generator().manual_seed(2)
    teacher = torch.randn(12, 16, generator=generator), torch.randn(16, 1, generator=generator)

    def answer(inputs: Tensor) -> Tensor:
        first, last = (weights.to(inputs.dtype) for weights in teacher)
        return functional.relu(inputs @ first / 12**0.5) @ last / 4

    def streamed(rows: Batch, generator: torch.Generator) -> Batch:
        inputs = torch.randn(rows[0].shape, generator=generator, dtype=rows[0].dtype)
        noise = torch.randn(rows[1].shape, generator=generator, dtype=rows[1].dtype)
        return inputs, answer(inputs) + TEACHER_NOISE * noise

    held_out = torch.randn(2048, 12, generator=generator)
    return SmallTask(
        name="student",
        training=Training(epochs=15, lr=0.05, nesterov=False),
        model=lambda: _perceptron(12, 48, 1),
        loss=functional.mse_loss,
        train=(torch.zeros(1280, 12), torch.zeros(1280, 1)),
        validation=(held_out, answer(held_out)),
        batch=streamed,
    )


def characters() -> SmallTask:
    """The next character of scikit-learn's descriptions of its data sets, by the last eight."""
    loaders = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
    text = "".join(getattr(datasets, f"load_{name}")().DESCR for name in loaders)
    known = {character: index for index, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([known[character] for character in text])
    windows = codes.unfold(0, WINDOW + 1, 1)
    validated = (torch.arange(len(windows)) // 500) % 6 == 5  # a sixth, in stretches of 500
    train, held_out = windows[~validated][:6144], windows[validated]
    return SmallTask(
        name="characters",
        training=Training(epochs=8, batch_size=128, lr=0.1),
        model=lambda: nn.Sequential(
            nn.Embedding(len(known), 6), nn.Flatten(), _perceptron(6 * WINDOW, 48, len(known))
        ),
        loss=functional.cross_entropy,
        train=(train[:, :-1], train[:, -1]),
        validation=(held_out[:, :-1], held_out[:, -1]),
    )


def spirals() -> SmallTask:
    """Two noisy arms of a spiral, told apart."""
    rng = np.random.default_rng(0)
    arm = np.arange(2048) % 2
    angle = 6.0 * rng.random(2048)
    turned = angle + np.pi * arm
    points = np.stack([np.cos(turned), np.sin(turned)], axis=1) * angle[:, None]
    train, validation = _split(points + 0.4 * rng.standard_normal(points.shape), arm, 1024)
    return SmallTask(
        name="spirals",
        training=Training(epochs=14, lr=0.05, nesterov=False),
        model=lambda: _perceptron(2, 32, 32, 2),
        loss=functional.cross_entropy,
        train=train,
        validation=validation,
    )


def friedman() -> SmallTask:
    """J. H. Friedman's regression of five out of ten inputs, with noise (1991)."""
    inputs, values = datasets.make_friedman1(n_samples=2400, noise=1.0, random_state=0)
    train, validation = _split(inputs, ((values - values.mean()) / values.std())[:, None], 1280)
    return SmallTask(
        name="friedman",
        training=Training(epochs=12, lr=0.02, weight_decay=1e-4),
        model=lambda: _perceptron(10, 32, 1),
        loss=functional.mse_loss,
        train=train,
        validation=validation,
    )


def autoencoder() -> SmallTask:
    """Digits through a bottleneck of ten numbers."""
    (inputs, _), (held_out, _) = _digits()
    return SmallTask(
        name="autoencoder",
        training=Training(epochs=14, lr=0.3),
        model=lambda: _perceptron(64, 24, 10, 24, 64),
        loss=functional.mse_loss,
        train=(inputs, inputs),
        validation=(held_out, held_out),
    )


def autoencoder_short() -> SmallTask:
    """The autoencoder, half as long."""
    task = autoencoder()
    return replace(task, name="autoencoder-short", training=replace(task.training, epochs=7))


def friedman_wide() -> SmallTask:
    """Friedman's regression by a network twice as wide."""
    return replace(friedman(), name="friedman-wide", model=lambda: _perceptron(10, 64, 1))


def spirals_few() -> SmallTask:
    """The spirals by half of the data, with a rate of its own that is twice as high."""
    task = spirals()
    inputs, labels = task.train
    return replace(
        task,
        name="spirals-few",
        training=replace(task.training, lr=0.1),
        train=(inputs[:512], labels[:512]),
    )


TASKS: Mapping[str, Callable[[], SmallTask]] = {
    "characters": cache(characters),
    "denoiser": cache(denoiser),
    "diabetes": cache(diabetes),
    "student": cache(student),
    "tumours": cache(tumours),
    "wrong-labels": cache(wrong_labels),
}
"""What makes each task, by its name."""
HELD_OUT: Mapping[str, Callable[[], SmallTask]] = {
    "autoencoder": cache(autoencoder),
    "friedman": cache(friedman),
    "spirals": cache(spirals),
}
"""Tasks that had no part in the choice of anything: neither features nor lengths nor settings."""
KIN: Mapping[str, Callable[[], SmallTask]] = {
    "autoencoder-short": cache(autoencoder_short),
    "friedman-wide": cache(friedman_wide),
    "spirals-few": cache(spirals_few),
}
"""Variants of the held-out tasks, from which a search of these may start."""
EVERY = {**TASKS, **HELD_OUT, **KIN}
