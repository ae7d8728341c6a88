"""Finds the learning-rate schedule for a model and hands it back as code.

The public names: :class:`Task` and :class:`Splits`, which a task is made of; the schedule families;
and, as ``clrsearch.service``, everything that the command line does. They are imported when they
are first used, so that ``clrsearch --help`` pays for none of them; only ``dry_run``, by which a
training loop runs alone, imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrsearch.errors import ClrsearchError
    from clrsearch.schedules import FAMILIES, Constant, Cyclic, trace
    from clrsearch.tasks import Splits, Task
    from clrsearch.training.dry import dry_run

__all__ = [
    "FAMILIES",
    "ClrsearchError",
    "Constant",
    "Cyclic",
    "Splits",
    "Task",
    "dry_run",
    "trace",
]

_HOMES = {
    "ClrsearchError": "clrsearch.errors",
    "FAMILIES": "clrsearch.schedules",
    "Constant": "clrsearch.schedules",
    "Cyclic": "clrsearch.schedules",
    "dry_run": "clrsearch.training.dry",
    "trace": "clrsearch.schedules",
    "Splits": "clrsearch.tasks",
    "Task": "clrsearch.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clrsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
