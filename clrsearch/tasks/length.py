"""How long a run is, and where in it the model is validated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from clrsearch.errors import TaskError


class Spacing(BaseModel):
    """The length of a run, and the intervals between its validations.

    Attributes:
        epochs: the number of epochs or, if the length was given in steps, of intervals.
        steps_per_epoch: their optimizer steps; a mean, if they differ in length.
        steps: the length, if it was given in steps.
        validate_every: steps between two validations; None if they are at the epochs' ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int
    steps_per_epoch: int | float
    steps: int | None = None
    validate_every: int | None = None

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in a full run."""
        return round(self.epochs * self.steps_per_epoch)

    @property
    def intervals(self) -> int:
        """The number of validations in a full run."""
        every = self.validate_every
        return self.epochs if every is None else math.ceil(self.horizon / every)

    @property
    def interval(self) -> Literal["epoch", "interval"]:
        """What the steps between two validations are called."""
        return "epoch" if self.validate_every is None else "interval"

    @property
    def progress(self) -> Literal["epoch", "validation"]:
        """What a reader is told that a run has done so many of, and its intervals by number."""
        return "epoch" if self.validate_every is None else "validation"

    @property
    def unit(self) -> Literal["epoch", "validation"]:
        """What ``epochs`` counts, to a reader."""
        return "epoch" if self.steps is None else "validation"

    @property
    def in_steps(self) -> bool:
        """Whether the length is told in steps: it was given so, or the epochs differ in length."""
        return self.steps is not None or self.steps_per_epoch != int(self.steps_per_epoch)

    @property
    def ends(self) -> tuple[int, ...]:
        """The optimizer steps taken when each interval ends: every so many, and at the horizon."""
        if self.validate_every is None:
            return tuple(round(n * self.steps_per_epoch) for n in range(1, self.epochs + 1))
        return (*range(self.validate_every, self.horizon, self.validate_every), self.horizon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """The length asked for, in ``epochs`` or in optimizer ``steps``.

    ``validate_every`` is the number of steps between two validations; None for the epochs' ends.

    Raises:
        TaskError: the length is given twice, or in steps without ``validate_every``.
    """

    epochs: int | None
    steps: int | None = None
    validate_every: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise TaskError("epochs and steps are both given: leave one of them out")
        if self.steps is not None and self.validate_every is None:
            raise TaskError(
                f"a length of {self.steps} steps needs validate_every, the steps between two "
                "validations, as in --set validate_every=500"
            )

    def with_epochs_of(self, steps: int) -> Spacing:
        """Where a run validates whose epochs have that many steps, unless its length is in steps.

        Raises:
            TaskError: the run ends before its first validation.
        """
        return self.over(self.steps or (self.epochs or 0) * steps)

    def over(self, total: int) -> Spacing:
        """Where a run of ``total`` steps validates; its epochs may differ in length.

        Raises:
            TaskError: the run ends before its first validation, or has another length.
        """
        every = self.validate_every
        if self.steps is not None and total != self.steps:
            raise TaskError(
                f"total_steps is {total}, but the study trains for {self.steps}: pass "
                "run.total_steps"
            )
        if every is not None and every > total:
            raise TaskError(
                f"validate_every is {every} steps, longer than the run, which has {total}"
            )
        epochs = self.epochs
        if epochs is None:
            assert every is not None
            epochs = math.ceil(total / every)
        if epochs > total:
            raise TaskError(f"{epochs} epochs cannot share {total} steps")
        whole, rest = divmod(total, epochs)
        return Spacing(
            epochs=epochs,
            steps_per_epoch=total / epochs if rest else whole,
            steps=self.steps,
            validate_every=every,
        )
