"""The training batches of runs that have them in common: same seed, same place in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from clrsearch.tasks import Task
from clrsearch.training.contract import augmented, pair_of
from clrsearch.training.data import Batches, TensorBatches, drawn_apart
from clrsearch.training.feed import Feed
from clrsearch.training.seeding import Generators, derive

Position = tuple[tuple[int, int], Generators | None]


class Stream:
    """Draws the augmented batches of one optimizer step after another, as a run alone would.

    It has random generators of its own, which augmentation and loading draw from: the global ones
    are as before afterwards.
    """

    def __init__(
        self, task: Task, train: Batches, seed: tuple[int, int], device: torch.device
    ) -> None:
        """``train`` is for this stream alone, unless its tensors are in memory."""
        self._task = task
        self._seed = seed
        self._device = device
        self._tensors = train if isinstance(train, TensorBatches) else None
        reader = train if self._tensors is None else self._tensors.rows()
        self._feed = Feed(reader, task.accumulate, seed)
        self._augments = task.overrides("augment")
        self._draws = self._augments or self._tensors is None
        self._random: Generators | None = None

    @property
    def now(self) -> Position:
        """The place in the data and the states of the generators, None if nothing draws."""
        return self._feed.place, self._random

    def begin(self, interval: int) -> None:
        """Seed the generators for an interval, counted from 1."""
        if self._draws:
            self._random = self.seeded(interval)

    def go_to(self, position: Position) -> None:
        """Continue from a position."""
        self._feed.place, random = position
        self._random = random if self._draws else None

    def seeded(self, interval: int) -> Generators:
        """The states of the generators at the beginning of an interval."""
        with drawn_apart(derive(*self._seed, "epoch", interval), self._device):
            return Generators.now(self._device)

    @property
    def has_rows(self) -> bool:
        """Whether batches are nothing but samples in memory; see :meth:`rows`."""
        return not self._draws

    def rows(self) -> list[torch.Tensor]:
        """The batches of the next step as the numbers of their samples."""
        return self._feed.draw()

    def at(self, rows: torch.Tensor) -> Any:
        """The batch of the samples of these numbers."""
        assert self._tensors is not None
        return self._tensors.at(rows)

    def draw(self) -> list[Any]:
        """The batches of the next step."""
        if self._random is None:
            return self._fetched()
        before = Generators.now(self._device)  # those that the models of the lanes draw from
        self._random.restore(self._device)
        try:
            batches = self._fetched()
            if self._augments:
                batches = [self._augmented(batch) for batch in batches]
            self._random = Generators.now(self._device)
        finally:
            before.restore(self._device)
        return batches

    def _fetched(self) -> list[Any]:
        batches = self._feed.draw()
        return batches if self._tensors is None else [self.at(rows) for rows in batches]

    def _augmented(self, batch: Any) -> Any:
        inputs, targets = pair_of(batch)
        return augmented(self._task, inputs), targets


def drawn_by(streams: Sequence[Stream]) -> list[Any]:
    """The batches of the next step of as many lanes: each tensor is (K, ...), a part per stream.

    A stream that occurs more than once is drawn from once.
    """
    first = streams[0]
    draw = Stream.rows if first.has_rows else Stream.draw
    drawn = {id(stream): draw(stream) for stream in dict.fromkeys(streams)}
    steps = zip(*(drawn[id(stream)] for stream in streams), strict=True)
    batches = [tree_map(lambda *parts: torch.stack(parts), *each) for each in steps]
    return [first.at(rows) for rows in batches] if first.has_rows else batches
