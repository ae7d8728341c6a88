"""The interface of a training run: epochs, one after the other, until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A finished epoch, or other interval between two validations.

    It has its number (from 1), the mean training loss and the validation metrics.
    ``loss`` is None for a custom training loop, which does not report it.
    """

    number: int
    loss: float | None
    metrics: Mapping[str, float]


class Diverged(Exception):
    """The training loss or the metric is not finite; ``epoch`` (from 1) was not completed.

    ``word`` is what such an interval between two validations is called.
    """

    def __init__(self, epoch: int, what: str, word: str = "epoch") -> None:
        super().__init__(f"{what} was not finite in {word} {epoch}")
        self.epoch = epoch


class Interrupted(BaseException):
    """The run was asked to stop and did so between two batches; its state resumes it right there.

    It is not an ``Exception``, so that no task catches it.
    """


class Unrestorable(Exception):
    """A run cannot resume from its checkpoint and is no longer usable; the message says why."""


@contextmanager
def restoring() -> Iterator[None]:
    """Wraps code that reads a saved state: an invalid one may raise any exception.

    Raises:
        Unrestorable: in place of the exception raised in the block.
    """
    try:
        yield
    except (Unrestorable, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise Unrestorable(f"it does not fit: {type(error).__name__}: {said}") from error


def counted(number: Any, most: int) -> int:
    """The number of finished epochs or steps in a saved state, at most ``most``.

    Raises:
        ValueError: it is not an integer in that range.
    """
    if not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(f"{number!r} of {most} epochs or steps")
    return number


class Run(Protocol):
    """One training run of a task under one trace from one seed."""

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""

    @property
    def seconds(self) -> float:
        """The time spent on training and validation."""

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """Train and validate the remaining epochs, calling ``on_epoch`` after each.

        Returns after the last epoch, or when ``on_epoch`` returns false. Exceptions from
        ``on_epoch`` propagate.

        Raises:
            Diverged: in the epoch in which the loss or the metric stopped being finite.
            Interrupted: the run was asked to stop, between two batches.
            TaskError: the task broke its contract.
            Unrestorable: before the first epoch, for a loop that restores its state only then.
        """

    def test(self) -> dict[str, float]:
        """The current model's metrics on the test split."""

    def state(self) -> dict[str, Any] | None:
        """Everything a run of the same task, trace and seed needs to resume from here, bit for bit.

        None if it cannot be saved at this point.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from a state returned by :meth:`state`.

        Raises:
            Unrestorable: the state belongs to another model, or is invalid.
        """
