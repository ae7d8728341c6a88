"""Another weight decay than the one a task's optimizer has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

FACTOR = "x"
"""Ends a text that is a factor on the task's own weight decay: ``0.3x``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDecay:
    """A weight decay, or a factor on the task's own if it is ``relative``."""

    value: float
    relative: bool = False

    @classmethod
    def read(cls, given: float | str) -> Self:
        """Read a number, or a text such as ``0.3x``.

        Raises:
            ValueError: it is neither, or negative.
        """
        text = str(given)
        number = float(text.removesuffix(FACTOR))
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{text} is negative or not finite")
        return cls(value=number, relative=text.endswith(FACTOR))

    def of(self, own: float) -> float:
        """The weight decay of a parameter group that has its ``own``."""
        return self.value * own if self.relative else self.value
