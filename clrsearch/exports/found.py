"""A schedule to export, and the type of the writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clrsearch.errors import PlanError
from clrsearch.schedules import Momentum, Schedule, SourceFile, Trace, trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A schedule to export, the metadata for its file, and the optimizer it was found with.

    ``groups`` are the names of the optimizer's parameter groups, ``own_ratios`` the task's own
    rates for them relative to the first group's; ``file.multipliers`` are applied on top.
    """

    schedule: Schedule
    file: SourceFile
    momentum: Momentum
    groups: tuple[str, ...] = ("0",)
    own_ratios: tuple[float, ...] = (1.0,)

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in a full run."""
        return self.file.horizon

    @property
    def ratios(self) -> tuple[float, ...]:
        """The groups' rates relative to the first group's, multipliers included."""
        both = zip(self.own_ratios, self.file.multipliers, strict=True)
        return tuple(own * found for own, found in both)

    @property
    def one_rate(self) -> bool:
        """Whether all parameter groups have the same rate."""
        return len(set(self.ratios)) == 1

    @property
    def trace(self) -> Trace:
        """The trace that the trial played."""
        return trace(self.schedule, self.horizon, self.ratios)

    def cannot(self, format: str, why: str, *, instead: str = "torch") -> PlanError:
        """The error of a ``format`` that cannot express the schedule; ``instead`` names another."""
        return PlanError(
            f"{format} cannot express this {self.schedule.family} schedule: {why}; "
            f"--format {instead} can"
        )


Writer = Callable[[Found], str]
"""Renders a schedule as text. Raises: PlanError: the format cannot express it. ScheduleError: the
generated code does not reproduce it."""
