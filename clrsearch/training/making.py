"""From a task to its runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from clrsearch.schedules import Trace
from clrsearch.tasks import Loop, Task, TaskFacts
from clrsearch.training.loop import LoopRun, studied
from clrsearch.training.precision import Precision
from clrsearch.training.run import Run
from clrsearch.training.sequential import SequentialRun, TaskData, warm_up


class RunMaker(Protocol):
    """Makes a run of a trace, from (``seed``, ``seed_index``)."""

    def __call__(
        self,
        trace: Trace,
        *,
        seed: int,
        seed_index: int,
        tests: bool = False,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Run:
        """The run, before its first epoch; ``interrupted`` is asked whether to stop.

        ``tests`` says whether it will be asked for the test split, as in a confirmation.
        """


def run_maker(
    task: Task | Loop, facts: TaskFacts, device: torch.device, precision: Precision = "float32"
) -> RunMaker:
    """What makes the runs of a task in this process, on a device; the data is read once.

    Raises:
        TaskRaised: the task's own code raised.
    """
    if isinstance(task, Loop):
        return partial(_loop_run, task, facts, device)
    assert facts.batch_size is not None  # of a task it is known
    data = TaskData(task, facts.batch_size, device)
    warm_up(task)
    make = partial(SequentialRun, task, facts, data, device=device, precision=precision)
    return partial(_task_run, make)


def _task_run(
    make: Callable[..., Run],
    trace: Trace,
    *,
    seed: int,
    seed_index: int,
    tests: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Run:
    """A task's run, which needs not know before its end whether the test split is wanted."""
    return make(trace, seed=seed, seed_index=seed_index, interrupted=interrupted)


def _loop_run(
    loop: Loop,
    facts: TaskFacts,
    device: torch.device,
    trace: Trace,
    *,
    seed: int,
    seed_index: int,
    tests: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> Run:
    """A run of a loop of the user's own."""
    return LoopRun(
        loop,
        studied(facts, trace),
        seed=seed,
        seed_index=seed_index,
        tests=tests,
        device=device,
        interrupted=interrupted,
    )
