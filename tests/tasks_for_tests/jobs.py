"""Small jobs of the kinds that people train, on what scikit-learn brings along.

One of each: regression on a table, classification of padded texts, a language model on a stream,
boxes in images, and digits with accumulated and clipped gradients and averaged weights. A job kills
its process once, at the step in CLRSEARCH_TEST_FATAL_STEP, and leaves the file in
CLRSEARCH_TEST_FATAL_FLAG.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import torch
from sklearn import datasets
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, pad
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

from clrsearch import Loaders, Splits, Task


class Job(Task):
    direction = "minimize"
    epochs = 3
    batch_size = 16
    steps_taken = 0

    def after_step(self, model):
        self.steps_taken += 1
        flag = Path(os.environ.get("CLRSEARCH_TEST_FATAL_FLAG", "/"))
        step = os.environ.get("CLRSEARCH_TEST_FATAL_STEP")
        if str(self.steps_taken) == step and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def thirds(dataset) -> Splits:
    """A random split, by the generator that the study has seeded."""
    return Splits(*random_split(dataset, [0.6, 0.2, 0.2]))


class Table(Job):
    """Progression of diabetes by ten measurements of a patient."""

    metric = "mae"

    def data(self):
        table = datasets.load_diabetes()
        measured = torch.tensor(table.data, dtype=torch.float32) * 20
        progress = torch.tensor(table.target, dtype=torch.float32)
        return thirds(TensorDataset(measured, (progress - progress.mean()) / progress.std()))

    def model(self):
        return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=3e-3)

    def loss(self, output, target):
        return mse_loss(output, target)

    def measure(self, output, target):
        return {"mae": (output - target).abs().sum(), "mse": (output - target).square().sum()}


def describing_texts() -> list[str]:
    """The descriptions of scikit-learn's data sets."""
    makers = (datasets.load_iris, datasets.load_wine, datasets.load_diabetes, datasets.load_digits)
    return [make().DESCR for make in (*makers, datasets.load_breast_cancer)]


class Sentences(Dataset):
    """Lines of the descriptions as words, with the number of the data set described."""

    def __init__(self) -> None:
        lines = [
            (re.findall(r"\w+", line.lower()), number)
            for number, text in enumerate(describing_texts())
            for line in text.splitlines()
        ]
        self.lines = [(words, number) for words, number in lines if len(words) >= 3]
        words = sorted({word for line, _ in self.lines for word in line})
        self.numbers = {word: place + 1 for place, word in enumerate(words)}

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, index):
        words, label = self.lines[index]
        return {"words": [self.numbers[word] for word in words], "label": label}


class Reader(nn.Module):
    """The mean of its words' vectors, classified."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16, padding_idx=0)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 5))

    def forward(self, words, mask):
        return self.head(self.embedding(words).sum(1) / mask.sum(1, keepdim=True))


class Texts(Job):
    """Which data set a line of text describes: dict batches, padded to their longest text."""

    metric = "accuracy"
    direction = "maximize"

    def data(self):
        self.sentences = Sentences()
        return thirds(self.sentences)

    def collate(self, samples):
        longest = max(len(sample["words"]) for sample in samples)
        rows = [torch.tensor(sample["words"]) for sample in samples]
        words = torch.stack([pad(row, (0, longest - len(row))) for row in rows])
        labels = torch.tensor([sample["label"] for sample in samples])
        return {"words": words, "mask": words != 0, "labels": labels}

    def model(self):
        return Reader(len(self.sentences.numbers) + 1)

    def optimizer(self, model):
        return torch.optim.Adam(model.parameters(), lr=1e-2)

    def training_step(self, model, batch):
        return cross_entropy(model(batch["words"], batch["mask"]), batch["labels"])

    def validation_step(self, model, batch):
        output = model(batch["words"], batch["mask"])
        right = (output.argmax(1) == batch["labels"]).sum()
        return {"accuracy": (right, len(output))}


class Letters(IterableDataset):
    """Windows of text, one after the other, without an end that is known before."""

    def __init__(self, text: bytes, length: int = 16) -> None:
        self.text, self.length = text, length

    def __iter__(self):
        for start in range(0, len(self.text) - self.length - 1, self.length):
            window = torch.tensor(list(self.text[start : start + self.length + 1]))
            yield window.clamp(max=127)


class Speaker(nn.Module):
    """What letter comes next, at each place of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, 24)
        self.memory = nn.GRU(24, 32, batch_first=True)
        self.head = nn.Linear(32, 128)

    def forward(self, letters):
        return self.head(self.memory(self.embedding(letters))[0])


class Language(Job):
    """The next letter of the same texts: a stream, measured every few steps, per letter."""

    metric = "loss"
    total_steps = 50
    validate_every = 20

    def loaders(self):
        text = "\n".join(describing_texts()).encode()
        parts = (text[:12_000], text[12_000:14_000], text[14_000:16_000])
        return Loaders(*(DataLoader(Letters(part), self.batch_size) for part in parts))

    def model(self):
        return Speaker()

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=1e-2)

    def _losses(self, model, windows):
        output = model(windows[:, :-1])
        return cross_entropy(output.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")

    def training_step(self, model, batch):
        return self._losses(model, batch).mean()

    def validation_step(self, model, batch):
        losses = self._losses(model, batch)
        return {"loss": (losses.sum(), losses.numel())}


class Scenes(Dataset):
    """One or two digits on a canvas, each with its box."""

    def __init__(self) -> None:
        self.digits = torch.tensor(datasets.load_digits().images[:240], dtype=torch.float32) / 16

    def __len__(self):
        return 120

    def __getitem__(self, index):
        canvas, boxes = torch.zeros(1, 16, 16), []
        for half in range(1 + index % 2):
            top, left = (index * 5 + half) % 8, 8 * half
            canvas[0, top : top + 8, left : left + 8] = self.digits[2 * index + half]
            boxes.append([left, top, left + 8, top + 8])
        return canvas, {"boxes": torch.tensor(boxes, dtype=torch.float32) / 16}


class Detector(nn.Module):
    """A box and a score for each half of the canvas; given targets, its losses, as torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, images, targets=None):
        found = self.body(torch.stack(images)).view(-1, 2, 5)
        if targets is None:
            return [{"boxes": each[:, :4], "scores": each[:, 4].sigmoid()} for each in found]
        there = torch.stack([one_hot(torch.tensor(len(t["boxes"]) - 1), 2) for t in targets])
        pairs = zip(found, targets, strict=True)
        boxes = [mse_loss(f[: len(t["boxes"]), :4], t["boxes"]) for f, t in pairs]
        scores = nn.functional.binary_cross_entropy_with_logits(found[..., 4], there.float())
        return {"boxes": torch.stack(boxes).mean(), "scores": scores}


class Boxes(Job):
    """Boxes around digits: lists of images and of dict targets that differ in length."""

    metric = "distance"

    def data(self):
        scenes = Scenes()
        return Splits(*(Subset(scenes, range(start, start + 40)) for start in (0, 40, 80)))

    def collate(self, samples):
        images, targets = zip(*samples, strict=True)
        return list(images), list(targets)

    def model(self):
        return Detector()

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def training_step(self, model, batch):
        return sum(model(*batch).values())

    def validation_step(self, model, batch):
        images, targets = batch
        pairs = zip(model(images), targets, strict=True)
        far = [(f["boxes"][: len(t["boxes"])] - t["boxes"]).abs().mean() for f, t in pairs]
        return {"distance": (torch.stack(far).sum(), len(far))}


class Digits(Job):
    """Digits by accumulated, clipped gradients; the averaged weights are measured."""

    metric = "loss"
    batch_size = 8
    accumulate = 4
    clip_norm = 1.0
    ema = 0.9

    def data(self):
        digits = datasets.load_digits()
        images = torch.tensor(digits.data[:600], dtype=torch.float32) / 16
        return thirds(TensorDataset(images, torch.tensor(digits.target[:600])))

    def model(self):
        return nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)
        )

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss(self, output, target):
        return cross_entropy(output, target)

    def measure(self, output, target):
        return {"loss": cross_entropy(output, target, reduction="sum")}
