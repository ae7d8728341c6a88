"""The training batches of a run, pass after pass over the data, from any place on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from clrsearch.errors import TaskError
from clrsearch.training.data import Shuffled
from clrsearch.training.seeding import derive


class Feed:
    """Draws the batches of one optimizer step after another.

    ``place`` is where the next step's batches are: the number of finished passes over the data, and
    of steps in the current one. Set it to resume from there. Each pass has an order of its own,
    derived from (``seed``, ``seed_index``).
    """

    def __init__(self, train: Shuffled, accumulate: int, seed: tuple[int, int]) -> None:
        self._train = train
        self._accumulate = accumulate
        self._seed = seed
        self._steps = None if train.full is None else train.full // accumulate
        self._place = (0, 0)
        self._pass: Iterator[Any] | None = None

    @property
    def place(self) -> tuple[int, int]:
        """See the class."""
        return self._place

    @place.setter
    def place(self, place: tuple[int, int]) -> None:
        passes, steps = place
        self._place, self._pass = (int(passes), int(steps)), None

    def draw(self) -> list[Any]:
        """The batches of the next optimizer step.

        Raises:
            TaskError: a loader has fewer batches than its length, or none at all.
        """
        passes, step = self._place
        if self._steps is not None and step >= self._steps:
            self.place = passes, step = passes + 1, 0
        if self._pass is None:
            order = derive(*self._seed, "order", passes + 1)
            self._pass = self._train.shuffled(order, step * self._accumulate)
        batches = list(islice(self._pass, self._accumulate))
        if len(batches) < self._accumulate:
            if self._steps is not None or step == 0:
                raise self._ended(step * self._accumulate + len(batches))
            self.place = passes + 1, 0  # of a stream, whose end is not known before
            return self.draw()
        self._place = passes, step + 1
        return batches

    def _ended(self, batches: int) -> TaskError:
        if self._steps is None:
            return TaskError(
                f"loaders(): the training loader ended after {batches} batches, and a step takes "
                f"{self._accumulate}"
            )
        return TaskError(
            f"loaders(): the training loader has a length of {self._train.full}, but ended after "
            f"{batches} batches: correct its length"
        )
