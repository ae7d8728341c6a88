"""What a task class has to define, and the values that its attributes may have."""

from __future__ import annotations

from typing import get_args

from clrsearch.errors import TaskError
from clrsearch.tasks.task import Direction, Task

EITHER = (("data", "loaders"), ("loss", "training_step"), ("measure", "validation_step"))
"""Pairs of methods of which a task has one."""
REPLACED = (("evaluate", "validation_step"), ("augment", "training_step"), ("collate", "loaders"))
"""Optional methods, each with the one that takes its place."""


def require_attributes(name: str, task: type[Task]) -> None:
    """Reject a task class, called ``name``, that is incomplete or contradicts itself.

    Raises:
        TaskError: naming what is missing, or an attribute and its value.
    """
    length = "epochs" if task.total_steps is None else "total_steps"
    missing = [
        key for key in ("metric", "direction", length, "batch_size") if not hasattr(task, key)
    ]
    if missing:
        raise TaskError(f"{name} does not define {', '.join(missing)}")
    _require_methods(name, task)
    if not isinstance(task.metric, str):
        raise TaskError(f"{name}: metric must be a string, not {task.metric!r}")
    if task.direction not in get_args(Direction):
        raise TaskError(f"{name}: direction must be minimize or maximize, not {task.direction!r}")
    for key in (length, "batch_size", "accumulate", "validate_every", "validation_batch_size"):
        value = getattr(task, key)
        if value is not None and not _counts(value, 1):
            raise TaskError(f"{name}: {key} must be a positive integer, not {value!r}")
    if not _counts(task.num_workers, 0):
        raise TaskError(f"{name}: num_workers must be 0 or more, not {task.num_workers!r}")
    if task.clip_norm is not None and not task.clip_norm > 0:
        raise TaskError(f"{name}: clip_norm must be positive, not {task.clip_norm!r}")
    if task.ema is not None and not 0 <= task.ema < 1:
        raise TaskError(f"{name}: ema is a decay from 0 to below 1, not {task.ema!r}")


def _require_methods(name: str, task: type[Task]) -> None:
    lacks = set(task.__abstractmethods__)
    for usual, other in EITHER:
        if task.overrides(usual) and task.overrides(other):
            raise TaskError(f"{name} defines both {usual}() and {other}(): leave one of them out")
        if not (task.overrides(usual) or task.overrides(other)):
            lacks.add(usual)
    if lacks:
        raise TaskError(f"{name} does not define {', '.join(sorted(lacks))}")
    for unused, instead in REPLACED:
        if task.overrides(unused) and task.overrides(instead):
            raise TaskError(f"{name}: {unused}() is not called if there is {instead}()")
    for key in ("num_workers", "validation_batch_size"):
        if task.overrides("loaders") and getattr(task, key):
            raise TaskError(f"{name}: {key} is for data(); in loaders() it is the loader's own")


def _counts(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
