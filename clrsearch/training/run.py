"""What a training run is to the rest of the package: epochs, one after the other, until it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One finished epoch: its number from 1, mean training loss, validation metrics, duration."""

    number: int
    loss: float
    metrics: Mapping[str, float]
    seconds: float


class Diverged(Exception):
    """The training loss or the metric is not finite; ``epoch`` (from 1) was not finished."""

    def __init__(self, epoch: int, what: str) -> None:
        super().__init__(f"{what} was not finite in epoch {epoch}")
        self.epoch = epoch


class Run(Protocol):
    """One training of a task under one trace from one seed."""

    def next_epoch(self) -> Epoch:
        """Train and validate one more epoch.

        Raises:
            Diverged: within the epoch in which the loss stopped being finite.
            TaskError: the task broke its contract.
        """
