"""A task's splits in batches, and how to tell them from other splits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from clrsearch.errors import TaskError
from clrsearch.tasks import Loaders, Splits, Task, TaskFacts, task_code
from clrsearch.training.contract import SPLITS, collate_for, loaders_of, splits_of
from clrsearch.training.data import (
    WHOLE,
    Batches,
    DatasetBatches,
    LoaderBatches,
    Share,
    TensorBatches,
    drawn_apart,
)
from clrsearch.training.seeding import derive, seed_everything

VALIDATION_BATCH = 8  # times the training batch size, as no gradients are kept
LOOKED_AT = 16  # samples of a split that its fingerprint covers
CLOSE = 1e-3
"""Relative difference of fingerprints that decoding on another machine may explain."""


class TaskData:
    """A task's data on a device, shared by the runs of a process.

    It is made under the study's ``seed``. A process of a group takes its ``share`` of each batch,
    whose size is for all of them together. The test split is not touched until it is requested,
    which only a confirmation does.

    Attributes:
        train: the training split.
        validation: the validation split.
        fingerprints: of the two; None for a task with loaders of its own.

    Raises:
        TaskError: ``data()`` or ``loaders()`` breaks its contract.
        TaskRaised: the task's own code raised.
    """

    def __init__(
        self,
        task: Task,
        batch_size: int,
        device: torch.device,
        *,
        seed: int = 0,
        share: Share = WHOLE,
    ) -> None:
        if not task.overrides("loaders"):  # whose batches are looked at one by one
            share.require_equal("batch_size", batch_size)
        self._share = share
        self._task = task
        self._device = device
        self._batch_size = batch_size
        self.fingerprints: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        with task_code("loading the data"), drawn_apart(derive(seed, 0, "data"), device):
            found: Splits | Loaders
            if task.overrides("loaders"):
                found = loaders_of(task)
            else:
                found = splits_of(task)
                self.fingerprints = fingerprint(found[0], seed), fingerprint(found[1], seed)
        self.train = self._batches(0, found.train)
        self.validation = self._batches(1, found.validation)
        self._test = found.test

    @cached_property
    def test(self) -> Batches:
        """The test split."""
        return self._batches(2, self._test)

    def require_same(self, facts: TaskFacts) -> None:
        """Reject splits that differ from those that the study was created with.

        Raises:
            TaskError: naming the split.
        """
        if facts.splits is None or self.fingerprints is None:
            return
        for name, here, then in zip(SPLITS, self.fingerprints, facts.splits, strict=False):
            if len(here) == 1 or len(then) == 1:
                here, then = here[:1], then[:1]
            if here[0] != then[0]:
                difference = f"has {here[0]:,.0f} samples, and had {then[0]:,.0f}"
            elif not np.allclose(
                here, then, rtol=CLOSE, atol=CLOSE * max(map(abs, then[1:]), default=0)
            ):
                difference = "holds other samples than it did"
            else:
                continue
            raise TaskError(
                f"data(): the {name} split here {difference} when the study was created: it must "
                "be the same in every process, so draw a random split from a generator with a "
                "fixed seed"
            )

    def _batches(self, part: int, found: Any) -> Batches:
        """One of the three splits in batches."""
        task, name = self._task, SPLITS[part]
        if task.overrides("loaders"):
            return LoaderBatches(found, self._device, name, self._share)
        size = self._batch_size
        if part > 0:
            own = task.overrides("validation_step")
            size = task.validation_batch_size or (size if own else VALIDATION_BATCH * size)
            size += -size % self._share.ranks
        pairs = not task.overrides("training_step" if part == 0 else "validation_step")
        stacked = not task.overrides("collate")
        if isinstance(found, TensorDataset) and stacked and (len(found.tensors) == 2 or not pairs):
            return TensorBatches(found, size, self._device, self._share)
        collate = collate_for(task, name)
        return DatasetBatches(found, size, self._device, collate, task.num_workers, self._share)


def fingerprint(split: Any, seed: int) -> tuple[float, ...]:
    """The length of a dataset, and the means of some of its samples, each drawn under ``seed``.

    Means, not a hash: an image may be decoded slightly differently on another machine. A dataset
    with generators of its own, whose samples differ each time, has its length alone.
    """
    size = len(split)
    places = sorted({round(place) for place in np.linspace(0, size - 1, min(LOOKED_AT, size))})
    looks = []
    for _ in range(2):
        means = []
        for place in places:
            seed_everything(seed)
            means.append(_mean(split[place]))
        looks.append(means)
    first, again = looks
    return (float(size), *(first if first == again else ()))


def _mean(content: Any) -> float:
    """A number that tells samples apart: the sum of the means of its parts; texts are hashed."""
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        found = math.fsum((place + 1) * _mean(part) for place, part in enumerate(content))
    elif isinstance(content, str):
        found = float(zlib.crc32(content.encode()) % 1000)
    elif isinstance(content, torch.Tensor):
        found = content.detach().double().mean().item() if content.numel() else 0.0
    else:
        try:
            numbers = np.asarray(content, dtype=np.float64)
            found = float(numbers.mean()) if numbers.size else 0.0
        except (TypeError, ValueError):  # of a kind of its own
            found = 0.0
    return found if math.isfinite(found) else 0.0
