"""The training batches of runs that have them in common: same seed, same place in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from clrsearch.tasks import Task
from clrsearch.training.contract import augmented, pair_of
from clrsearch.training.data import Batches, TensorBatches
from clrsearch.training.feed import Feed
from clrsearch.training.seeding import derive, random_state, restore_random_state, seed_everything

Position = tuple[tuple[int, int], dict[str, Any] | None]


class Stream:
    """Draws the augmented batches of one optimizer step after another, as a run alone would.

    It has random generators of its own, which augmentation and loading draw from.
    """

    def __init__(
        self, task: Task, train: Batches, seed: tuple[int, int], device: torch.device
    ) -> None:
        self._task = task
        self._seed = seed
        self._device = device
        self._feed = Feed(train, task.accumulate, seed)
        self._augments = task.overrides("augment")
        self._draws = self._augments or not isinstance(train, TensorBatches)
        self._random: dict[str, Any] | None = None  # as seeded for the interval

    @property
    def now(self) -> Position:
        """The place in the data and the state of the generators, None if that is as seeded."""
        return self._feed.place, self._random

    def begin(self, interval: int) -> None:
        """Seed the generators for an interval, counted from 1."""
        self._random = None
        if self._draws:
            self._random = self.seeded(interval)

    def go_to(self, position: Position) -> None:
        """Continue from a position."""
        self._feed.place, self._random = position

    def draw(self) -> list[Any]:
        """The batches of the next step."""
        if not self._draws:
            return self._feed.draw()
        assert self._random is not None
        restore_random_state(self._random, self._device)
        batches = self._feed.draw()
        if self._augments:
            batches = [self._augmented(batch) for batch in batches]
        self._random = random_state(self._device)
        return batches

    def seeded(self, interval: int) -> dict[str, Any]:
        """The state of the generators at the beginning of an interval."""
        seed_everything(derive(*self._seed, "epoch", interval))
        return random_state(self._device)

    def _augmented(self, batch: Any) -> Any:
        inputs, targets = pair_of(batch)
        return augmented(self._task, inputs), targets


def stacked(batches: Sequence[Any]) -> Any:
    """A batch per lane as one, each tensor with a first dimension for the lanes."""
    return tree_map(lambda *parts: torch.stack(parts), *batches)
