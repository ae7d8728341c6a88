"""What the search must know of a task, found out once, by training for one step."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from itertools import islice

import torch

from clrsearch.errors import TaskError
from clrsearch.tasks import Direction, LoadedTask, Loop, TaskFacts, task_code
from clrsearch.training.loop import StopRun, TrialRun, call
from clrsearch.training.optimizer import optimizer_facts
from clrsearch.training.precision import Precision, compute_in
from clrsearch.training.seeding import derive, seed_everything
from clrsearch.training.sequential import TaskData, train_batch, validate


def probe(
    loaded: LoadedTask,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    device: torch.device,
    precision: Precision = "float32",
) -> TaskFacts:
    """The facts of a task, under a study's epochs, batch size, metric and direction where given.

    One training step and one validation batch are computed, so that a mistake in the task shows
    now.

    Raises:
        TaskError: the task breaks its contract: what is wrong, by name.
        TaskRaised: the task's own code raised.
    """
    task, source = loaded
    if isinstance(task, Loop):
        return _probe_loop(
            task,
            source,
            epochs=epochs,
            batch_size=batch_size,
            metric=metric,
            direction=direction,
            device=device,
            precision=precision,
        )
    batch_size = batch_size or task.batch_size
    metric = metric or task.metric
    with task_code("trying the task out"):
        data = TaskData(task, batch_size, device)
        steps = data.train.samples // batch_size
        if steps == 0:
            raise TaskError(
                f"the batch size {batch_size} exceeds the {data.train.samples} training samples"
            )
        seed_everything(derive(0, 0, "init"))
        model = task.model().to(device)
        optimizer = task.optimizer(model)
        found = optimizer_facts(optimizer)
        compute_in(precision, model, device)
        # one batch shows what is measured, and whether it is finite; its means do not matter here
        first_batch = islice(data.validation.in_order(), 1)
        measured = validate(task, model, first_batch, data.validation.samples)
        model.train()
        train_batch(task, model, optimizer, *next(data.train.shuffled(0)))
    if metric not in measured:
        raise TaskError(f"the task measures no {metric!r}; it measures {', '.join(measured)}")
    if not math.isfinite(measured[metric]):
        raise TaskError(
            f"the validation metric {metric} of the untrained model is {measured[metric]}"
        )
    return TaskFacts(
        metric=metric,
        direction=direction or task.direction,
        epochs=epochs or task.epochs,
        batch_size=batch_size,
        steps_per_epoch=steps,
        source=source,
        **dataclasses.asdict(found),
    )


def _probe_loop(
    loop: Loop,
    source: str,
    *,
    epochs: int | None,
    batch_size: int | None,
    metric: str | None,
    direction: Direction | None,
    device: torch.device,
    precision: Precision,
) -> TaskFacts:
    """The facts of a loop of the user's own, which is run up to where it asks for its scheduler."""
    if not (epochs and metric and direction):
        raise TaskError(
            f"{loop.name} is a loop of your own: say how long it trains and what it reports, with "
            "--epochs N --set metric=NAME --set direction=minimize, or maximize"
        )
    if batch_size is not None:
        raise TaskError(f"{loop.name} is a loop of your own, which makes its batches by itself")
    if precision != "float32":
        raise TaskError(
            f"{loop.name} is a loop of your own, which computes as it likes: precision is for tasks"
        )
    trial = TrialRun(loop, epochs, device)
    seed_everything(derive(0, 0, "init"))
    with suppress(StopRun):
        call(loop, trial)
    if trial.found is None:
        raise TaskError(f"{loop.name} ended without run.scheduler(optimizer, steps_per_epoch)")
    optimizer, steps = trial.found
    found = optimizer_facts(optimizer)
    if not isinstance(steps, int) or steps < 1:
        raise TaskError(f"steps_per_epoch must be a positive whole number, not {steps!r}")
    return TaskFacts(
        metric=metric,
        direction=direction,
        epochs=epochs,
        batch_size=None,
        steps_per_epoch=steps,
        source=source,
        **dataclasses.asdict(found),
    )
