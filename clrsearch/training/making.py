"""Creates the runs of a task or a custom training loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, Required, TypedDict, Unpack

import torch

from clrsearch.schedules import Trace
from clrsearch.tasks import Loop, Task, TaskFacts
from clrsearch.training.custom_loop import studied
from clrsearch.training.data import WHOLE
from clrsearch.training.group import Group
from clrsearch.training.loop_run import LoopRun
from clrsearch.training.precision import Precision
from clrsearch.training.run import Run
from clrsearch.training.sequential import SequentialRun, warm_up
from clrsearch.training.task_data import TaskData


class RunOptions(TypedDict, total=False):
    """How a trace is run.

    Attributes:
        seed: together with ``seed_index``, what the run's random numbers are drawn from.
        tests: whether the test split will be measured, as in a confirmation; not by default.
        interrupted: polled, and says whether to stop; never by default.
    """

    seed: Required[int]
    seed_index: Required[int]
    tests: bool
    interrupted: Callable[[], bool]


class RunMaker(Protocol):
    """Creates runs of traces."""

    def __call__(self, trace: Trace, **options: Unpack[RunOptions]) -> Run:
        """Create a run that has not started."""


def run_maker(
    task: Task | Loop,
    facts: TaskFacts,
    device: torch.device,
    precision: Precision = "float32",
    *,
    seed: int = 0,
    group: Group | None = None,
    data: TaskData | None = None,
) -> RunMaker:
    """A factory for a task's runs in this process, on one device.

    In a ``group``, all ranks make the same runs. The ``data`` is loaded once, as by
    :func:`load_data`, unless it is there already.

    Raises:
        TaskError: the splits differ from those that the study was created with.
        TaskRaised: the task's own code raised.
    """
    if isinstance(task, Loop):
        return partial(_loop_run, task, facts, device, group, {})
    if data is None:
        data = load_data(task, facts, device, seed=seed, group=group)
    assert data is not None  # it is no loop
    warm_up(task)
    make = partial(
        SequentialRun, task, facts, data, device=device, precision=precision, group=group
    )
    return partial(_task_run, make)


def load_data(
    task: Task | Loop,
    facts: TaskFacts,
    device: torch.device,
    *,
    seed: int,
    group: Group | None = None,
) -> TaskData | None:
    """The data of a study's task, made under its ``seed``; None for a loop, which loads its own.

    Raises:
        TaskError: the splits differ from those that the study was created with.
        TaskRaised: the task's own code raised.
    """
    if isinstance(task, Loop):
        return None
    assert facts.batch_size is not None  # always known for a task
    share = WHOLE if group is None else group.share
    data = TaskData(task, facts.batch_size, device, seed=seed, share=share)
    data.require_same(facts)
    return data


def _task_run(make: Callable[..., Run], trace: Trace, **options: Unpack[RunOptions]) -> Run:
    """A run of a task; whether to measure the test split can be decided at its end."""
    options.pop("tests", None)
    return make(trace, **options)


def _loop_run(
    loop: Loop,
    facts: TaskFacts,
    device: torch.device,
    group: Group | None,
    prepared: dict[Any, Any],
    trace: Trace,
    **options: Unpack[RunOptions],
) -> Run:
    """A run of a custom training loop; what it has ``prepared`` is kept for the next."""
    course = studied(facts, trace)
    return LoopRun(loop, course, device=device, group=group, prepared=prepared, **options)
