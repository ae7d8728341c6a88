"""What a training run is to the rest of the package: epochs, one after the other, until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One finished epoch: its number from 1, mean training loss, validation metrics.

    A loop of the user's own keeps its loss to itself.
    """

    number: int
    loss: float | None
    metrics: Mapping[str, float]


class Diverged(Exception):
    """The training loss or the metric is not finite; ``epoch`` (from 1) was not finished."""

    def __init__(self, epoch: int, what: str) -> None:
        super().__init__(f"{what} was not finite in epoch {epoch}")
        self.epoch = epoch


class Interrupted(BaseException):
    """The run was asked to stop and did, between two batches; its state resumes it right there.

    It is no ``Exception``, so that no task swallows it.
    """


class Unrestorable(Exception):
    """A run cannot go on from its checkpoint, and is spoilt; the message says why."""


@contextmanager
def restoring() -> Iterator[None]:
    """A block that reads a state: a wrong one may raise anything at all there.

    Raises:
        Unrestorable: it did.
    """
    try:
        yield
    except Unrestorable:
        raise
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        raise Unrestorable(f"it does not fit: {type(error).__name__}: {said}") from error


def counted(number: Any, most: int) -> int:
    """How many epochs or steps a state says to have behind it, of ``most``.

    Raises:
        ValueError: it is no such number.
    """
    if not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(f"{number!r} of {most} epochs or steps")
    return number


class Run(Protocol):
    """One training of a task under one trace from one seed.

    ``epoch`` counts the finished epochs, ``seconds`` the time spent on training and validation.
    """

    epoch: int
    seconds: float

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """Train and validate the epochs that are left, calling ``on_epoch`` after each.

        It returns after the last one, or when ``on_epoch`` says not to go on. What ``on_epoch``
        raises comes out here.

        Raises:
            Diverged: within the epoch in which the loss stopped being finite.
            Interrupted: between two batches.
            TaskError: the task broke its contract.
            Unrestorable: before the first epoch, of a loop that is restored only there.
        """

    def test(self) -> dict[str, float]:
        """The metrics on the test split as the model is now."""

    def state(self) -> dict[str, Any] | None:
        """All that a run of the same task, trace and seed needs to go on from here, bit for bit.

        None where it cannot be saved just now.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            Unrestorable: it is another model's state, or none at all.
        """
