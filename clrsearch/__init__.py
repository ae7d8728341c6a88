"""Finds the learning-rate schedule for a model and hands it back as code.

    import clrsearch

    study = clrsearch.run("digits", trials=100)
    scheduler = study.best.make_scheduler(optimizer, len(loader))

:func:`run`, :func:`open` and :func:`lr_find` are what a notebook or a script calls. :class:`Task`
and :class:`Splits` are what a task is made of; ``dry_run`` runs a training loop alone. The schedule
families and the errors are here by name. Each is imported when it is first used, so that
``import clrsearch`` costs neither torch nor Optuna.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrsearch.api import Study, lr_find, open, run
    from clrsearch.errors import (
        ClrsearchError,
        PlanError,
        PlanMismatch,
        ScheduleError,
        StorageError,
        StudyError,
        StudyStopped,
        TaskError,
        TaskRaised,
    )
    from clrsearch.schedules import (
        FAMILIES,
        Constant,
        Cosine,
        CosineRestarts,
        Cyclic,
        Exponential,
        Linear,
        Manual,
        MultiStep,
        OneCycle,
        Polynomial,
        Step,
        WarmupStableDecay,
        trace,
    )
    from clrsearch.search import StudyPlan
    from clrsearch.tasks import Splits, Task
    from clrsearch.training.dry import dry_run

    __version__: str

__all__ = [
    "FAMILIES",
    "ClrsearchError",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "Linear",
    "Manual",
    "MultiStep",
    "OneCycle",
    "PlanError",
    "PlanMismatch",
    "Polynomial",
    "ScheduleError",
    "Splits",
    "Step",
    "StorageError",
    "Study",
    "StudyError",
    "StudyPlan",
    "StudyStopped",
    "Task",
    "TaskError",
    "TaskRaised",
    "WarmupStableDecay",
    "__version__",
    "dry_run",
    "lr_find",
    "open",
    "run",
    "trace",
]

_HOMES = {
    "clrsearch.api": ("Study", "lr_find", "open", "run"),
    "clrsearch.errors": (
        *(name for name in __all__ if name.endswith("Error")),
        *("PlanMismatch", "StudyStopped", "TaskRaised"),
    ),
    "clrsearch.search": ("StudyPlan",),
    "clrsearch.tasks": ("Splits", "Task"),
    "clrsearch.training.dry": ("dry_run",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clrsearch' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        return version("clrsearch")
    return getattr(importlib.import_module(_HOME.get(name, "clrsearch.schedules")), name)


def __dir__() -> list[str]:
    return __all__
