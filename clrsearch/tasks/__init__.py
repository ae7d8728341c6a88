"""What is trained: the contract of a task, its facts, and how it is found by name."""

from clrsearch.tasks.load import LoadedRate, LoadedTask, load_rate, load_task, task_code
from clrsearch.tasks.task import Direction, Splits, Task, TaskFacts

__all__ = [
    "Direction",
    "LoadedRate",
    "LoadedTask",
    "Splits",
    "Task",
    "TaskFacts",
    "load_rate",
    "load_task",
    "task_code",
]
