"""Finds the learning-rate schedule for a model and hands it back as code.

    import clrsearch

    study = clrsearch.run("digits", trials=100)
    scheduler = study.best.make_scheduler(optimizer, len(loader))

:func:`run`, :func:`open` and :func:`lr_find` are what a notebook or a script calls. :class:`Task`
and :class:`Splits` are what a task is made of; ``dry_run`` runs a training loop alone. The schedule
families and the errors are here by name. Each is imported when it is first used, so that
``import clrsearch`` costs neither torch nor Optuna.
"""

from typing import TYPE_CHECKING, Any

from clrsearch.lazy import deferred

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
        ScheduleFree,
        Step,
        WarmupStableDecay,
        trace,
    )
    from clrsearch.search import StudyPlan
    from clrsearch.tasks import Loaders, Splits, Task
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
    "Loaders",
    "Manual",
    "MultiStep",
    "OneCycle",
    "PlanError",
    "PlanMismatch",
    "Polynomial",
    "ScheduleError",
    "ScheduleFree",
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

_named = deferred(
    __name__,
    {
        "clrsearch.api": ("Study", "lr_find", "open", "run"),
        "clrsearch.errors": (
            *(name for name in __all__ if name.endswith("Error")),
            *("PlanMismatch", "StudyStopped", "TaskRaised"),
        ),
        "clrsearch.schedules": (
            *("FAMILIES", "Constant", "Cosine", "CosineRestarts", "Cyclic", "Exponential"),
            *("Linear", "Manual", "MultiStep", "OneCycle", "Polynomial", "Step"),
            *("ScheduleFree", "WarmupStableDecay", "trace"),
        ),
        "clrsearch.search": ("StudyPlan",),
        "clrsearch.tasks": ("Loaders", "Splits", "Task"),
        "clrsearch.training.dry": ("dry_run",),
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("clrsearch")
    return _named(name)


def __dir__() -> list[str]:
    return __all__
