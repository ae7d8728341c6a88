"""Tasks: their contract, their facts, and how they are found by name."""

from clrsearch.tasks.description import describe
from clrsearch.tasks.finding import BUILT_IN, rate_source, task_source
from clrsearch.tasks.length import Length, Spacing
from clrsearch.tasks.load import (
    LoadedRate,
    LoadedTask,
    as_script,
    load_rate,
    load_task,
    refuse_while_importing,
    task_code,
)
from clrsearch.tasks.session import importable_name, is_kept_here, keep
from clrsearch.tasks.task import Direction, Loaders, Loop, Splits, Task, TaskFacts, sign_of
from clrsearch.tasks.weight_decay import WeightDecay

__all__ = [
    "BUILT_IN",
    "Direction",
    "Length",
    "LoadedRate",
    "LoadedTask",
    "Loaders",
    "Loop",
    "Spacing",
    "Splits",
    "Task",
    "TaskFacts",
    "WeightDecay",
    "as_script",
    "describe",
    "importable_name",
    "is_kept_here",
    "keep",
    "load_rate",
    "load_task",
    "rate_source",
    "refuse_while_importing",
    "sign_of",
    "task_code",
    "task_source",
]
