"""What the fields of a schedule may be: everything else is refused, by the field's name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clrsearch.errors import ScheduleError

LARGEST_RATE = 1e15
"""No rate is larger, so that its product with a group's factor can be computed in float32."""


def require_rate(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse a learning rate that is not positive, or beyond 1e15; ``zero`` allows 0 as well.

    Raises:
        ScheduleError: naming the field.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ScheduleError(f"{name} must be {'0 or more' if zero else 'positive'}, not {value}")
    if value > LARGEST_RATE:
        raise ScheduleError(f"{name} must be at most {LARGEST_RATE:g}, not {value}")


def require_steps(name: str, value: float, *, zero: bool = False, whole: bool = False) -> None:
    """Refuse what is no positive number of steps; ``zero`` allows 0, ``whole`` no fractions.

    Raises:
        ScheduleError: naming the field.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "0 or more steps" if zero else "a positive number of steps"
        raise ScheduleError(f"{name} must be {least}, not {value}")
    if whole and not isinstance(value, int):
        raise ScheduleError(f"{name} must be a whole number of steps, not {value}")


def require_count(name: str, value: int) -> None:
    """Refuse what is no whole number from 1 on.

    Raises:
        ScheduleError: naming the field.
    """
    if not isinstance(value, int) or value < 1:
        raise ScheduleError(f"{name} must be a whole number from 1 on, not {value}")


def require_share(name: str, value: float | None) -> None:
    """Refuse what is not above 0 and at most 1, or is missing.

    Raises:
        ScheduleError: naming the field.
    """
    if value is None or not 0 < value <= 1:
        raise ScheduleError(f"{name} must be in (0, 1], not {value}")


def require_momenta(schedule: object) -> None:
    """Refuse a ``base_momentum`` and a ``max_momentum`` that do not go with ``cycle_momentum``.

    Raises:
        ScheduleError: they are set without it or missing beside it, not in [0, 1), or reversed.
    """
    leader, names = "cycle_momentum", ("base_momentum", "max_momentum")
    require_with(schedule, leader, names)
    if getattr(schedule, leader):
        for name in names:
            if not 0 <= getattr(schedule, name) < 1:
                raise ScheduleError(f"{name} must be in [0, 1), not {getattr(schedule, name)}")
        require_order(schedule, *names)


def require_order(schedule: object, low: str, high: str) -> None:
    """Refuse a field ``low`` that is above the field ``high``.

    Raises:
        ScheduleError: naming both.
    """
    if getattr(schedule, low) > getattr(schedule, high):
        raise ScheduleError(
            f"{low} {getattr(schedule, low)} is above {high} {getattr(schedule, high)}"
        )


def require_horizon(schedule: object) -> None:
    """Refuse a ``horizon`` that is no whole number of steps or leaves none behind ``warmup``.

    Raises:
        ScheduleError: naming the fields.
    """
    horizon, warmup = (getattr(schedule, name) for name in ("horizon", "warmup"))
    require_steps("horizon", horizon, whole=True)
    if warmup >= horizon:
        raise ScheduleError(f"warmup {warmup} leaves nothing of the horizon {horizon}")


def require_with(schedule: object, leader: str, names: Sequence[str]) -> None:
    """Refuse fields that are set without their ``leader``, or missing beside it.

    Raises:
        ScheduleError: naming both.
    """
    for name in names:
        if getattr(schedule, leader) and getattr(schedule, name) is None:
            raise ScheduleError(f"{leader} needs {name}")
        if not getattr(schedule, leader) and getattr(schedule, name) is not None:
            raise ScheduleError(f"{name} means nothing without {leader}")


def require_one_of(schedule: object, name: str, allowed: Sequence[str]) -> None:
    """Refuse a field that is none of the ``allowed`` values.

    Raises:
        ScheduleError: naming the field and all of them.
    """
    if getattr(schedule, name) not in allowed:
        raise ScheduleError(
            f"{name} must be one of {', '.join(allowed)}, not {getattr(schedule, name)!r}"
        )
