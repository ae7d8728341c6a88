"""Validation of schedule fields; errors name the field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clrsearch.errors import ScheduleError

LARGEST_RATE = 1e15
"""The largest rate allowed: its product with a group's factor must be computable in float32."""


def require_rate(name: str, value: float, *, zero: bool = False) -> None:
    """Reject a learning rate that is not positive, or above 1e15; ``zero`` allows 0 as well.

    Raises:
        ScheduleError: naming the field.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ScheduleError(f"{name} must be {'0 or more' if zero else 'positive'}, not {value}")
    if value > LARGEST_RATE:
        raise ScheduleError(f"{name} must be at most {LARGEST_RATE:g}, not {value}")


def require_steps(name: str, value: float, *, zero: bool = False, whole: bool = False) -> None:
    """Reject anything but a positive number of steps; ``zero`` allows 0, ``whole`` no fractions.

    Raises:
        ScheduleError: naming the field.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "0 or more steps" if zero else "a positive number of steps"
        raise ScheduleError(f"{name} must be {least}, not {value}")
    if whole and not isinstance(value, int):
        raise ScheduleError(f"{name} must be a whole number of steps, not {value}")


def require_count(name: str, value: int) -> None:
    """Reject anything but a positive integer.

    Raises:
        ScheduleError: naming the field.
    """
    if not isinstance(value, int) or value < 1:
        raise ScheduleError(f"{name} must be a positive whole number, not {value}")


def require_share(name: str, value: float | None) -> None:
    """Reject a missing value, and one that is not above 0 and at most 1.

    Raises:
        ScheduleError: naming the field.
    """
    if value is None or not 0 < value <= 1:
        raise ScheduleError(f"{name} must be in (0, 1], not {value}")


def require_momenta(schedule: object) -> None:
    """Reject a ``base_momentum`` and ``max_momentum`` that do not match ``cycle_momentum``.

    Raises:
        ScheduleError: they are set without it or missing with it, not in [0, 1), or reversed.
    """
    leader, names = "cycle_momentum", ("base_momentum", "max_momentum")
    require_with(schedule, leader, names)
    if getattr(schedule, leader):
        for name in names:
            if not 0 <= getattr(schedule, name) < 1:
                raise ScheduleError(f"{name} must be in [0, 1), not {getattr(schedule, name)}")
        require_order(schedule, *names)


def require_order(schedule: object, low: str, high: str) -> None:
    """Reject a field ``low`` that is greater than the field ``high``.

    Raises:
        ScheduleError: naming both.
    """
    if getattr(schedule, low) > getattr(schedule, high):
        raise ScheduleError(
            f"{low} {getattr(schedule, low)} is above {high} {getattr(schedule, high)}"
        )


def require_horizon(schedule: object) -> None:
    """Reject a ``horizon`` that is not a whole number of steps, or leaves none after ``warmup``.

    Raises:
        ScheduleError: naming the fields.
    """
    horizon, warmup = (getattr(schedule, name) for name in ("horizon", "warmup"))
    require_steps("horizon", horizon, whole=True)
    if warmup >= horizon:
        raise ScheduleError(f"warmup {warmup} must be shorter than the horizon {horizon}")


def require_with(schedule: object, leader: str, names: Sequence[str]) -> None:
    """Reject fields that are set without their ``leader``, or missing with it.

    Raises:
        ScheduleError: naming both.
    """
    for name in names:
        if getattr(schedule, leader) and getattr(schedule, name) is None:
            raise ScheduleError(f"{leader} needs {name}")
        if not getattr(schedule, leader) and getattr(schedule, name) is not None:
            raise ScheduleError(f"{name} requires {leader}")


def require_one_of(schedule: object, name: str, allowed: Sequence[str]) -> None:
    """Reject a field whose value is not one of those ``allowed``.

    Raises:
        ScheduleError: naming the field and the allowed values.
    """
    if getattr(schedule, name) not in allowed:
        raise ScheduleError(
            f"{name} must be one of {', '.join(allowed)}, not {getattr(schedule, name)!r}"
        )
