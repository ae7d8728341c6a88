"""Finds the learning-rate schedule for a model and hands it back as code.

The public names: :class:`Task` and :class:`Splits`, which a task is made of; the schedule families;
and, as ``clrsearch.service``, everything that the command line does. None of them imports torch.
"""

from clrsearch.errors import ClrsearchError
from clrsearch.schedules import FAMILIES, Constant, Cyclic, trace
from clrsearch.tasks import Splits, Task

__all__ = ["FAMILIES", "ClrsearchError", "Constant", "Cyclic", "Splits", "Task", "trace"]
