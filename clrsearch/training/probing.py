"""Probes what the search needs to know about a task, once, by training it briefly."""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import (
    Direction,
    Length,
    LoadedTask,
    Loop,
    Spacing,
    Task,
    TaskFacts,
    task_code,
)
from clrsearch.training.custom_loop import Course
from clrsearch.training.feed import Feed
from clrsearch.training.learner import Learner
from clrsearch.training.loop_run import LoopRun
from clrsearch.training.optimizer import OptimizerFacts, has_gradients, optimizer_facts, own_trace
from clrsearch.training.precision import Precision
from clrsearch.training.run import Diverged, Epoch, Interrupted
from clrsearch.training.seeding import derive, seed_everything
from clrsearch.training.sequential import require_metric
from clrsearch.training.task_data import TaskData


def probe(
    loaded: LoadedTask,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    validate_every: int | None = None,
    batch_size: int | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    device: torch.device,
    precision: Precision = "float32",
    seed: int = 0,
) -> TaskFacts:
    """The facts of a task, with a study's length, batch size, metric and direction where given.

    One training step and one validation batch are computed, so that mistakes in the task surface
    early. A custom training loop trains its first epoch or interval, at its optimizer's own rates.

    Raises:
        TaskError: the task breaks its contract; the message names what is wrong.
        TaskRaised: the task's own code raised.
    """
    task, source = loaded
    if isinstance(task, Loop):
        _refuse_for_loop(task, batch_size, precision)
        length = Length(epochs=epochs, steps=steps, validate_every=validate_every)
        return _probe_loop(task, source, length, metric, direction, device)
    if batch_size is not None and task.overrides("loaders"):
        raise TaskError("batch_size: this task makes its own batches, in loaders()")
    batch_size = batch_size or task.batch_size
    metric = metric or task.metric
    data = TaskData(task, batch_size, device, seed=seed)
    length = _length(task, epochs, steps, validate_every)
    spacing = length.with_epochs_of(_steps_per_epoch(task, data, batch_size, length))
    seed_everything(derive(0, 0, "init"))
    with task_code("building the model"):
        learner = Learner(task, device, precision)
    found = optimizer_facts(learner.optimizer)
    with task_code("validating the untrained model"):
        # one batch shows which metrics there are and whether they are finite
        measured = learner.validate(islice(data.validation.in_order(), 1))
    require_metric(metric, measured)
    if metric != task.metric and direction is None:
        raise TaskError(
            f"metric: {metric} is not the task's own, {task.metric}, so give its direction: "
            "--set direction=minimize or maximize"
        )
    if not math.isfinite(measured[metric]):
        raise TaskError(
            f"the validation metric {metric} of the untrained model is {measured[metric]}"
        )
    learner.model.train()
    with task_code("taking a training step"):
        loss = learner.step(Feed(data.train, task.accumulate, (0, 0)).draw())
    if not math.isfinite(loss):
        raise TaskError(f"the training loss of the untrained model is {loss.item()}")
    require_loadable("model()", learner.model.state_dict())
    require_loadable("optimizer()", learner.optimizer.state_dict())
    if not has_gradients(learner.optimizer):
        raise TaskError(
            "optimizer() trains nothing: after a step none of its parameters has a gradient; "
            "create it from the parameters of the model that it is given"
        )
    return TaskFacts(
        metric=metric,
        direction=direction or task.direction,
        batch_size=batch_size,
        source=source,
        splits=data.fingerprints,
        **spacing.model_dump(),
        **dataclasses.asdict(found),
    )


def _length(
    task: Task, epochs: int | None, steps: int | None, validate_every: int | None
) -> Length:
    """The length that a study gives its runs, or else that of the task."""
    if epochs is None and steps is None:
        steps = task.total_steps
        epochs = task.epochs if steps is None else None
    return Length(epochs=epochs, steps=steps, validate_every=validate_every or task.validate_every)


def _steps_per_epoch(task: Task, data: TaskData, batch_size: int, length: Length) -> int:
    """The optimizer steps in a pass over the training data.

    Raises:
        TaskError: there are none, or their number is needed and not known.
    """
    full, per_step = data.train.full, task.accumulate
    if full is None:
        if length.steps is None:
            raise TaskError(
                "loaders(): the training loader has no length, so the study's is given in steps: "
                "--set steps=10000 --set validate_every=500"
            )
        return length.steps
    if full == 0 and data.train.samples is not None:
        raise TaskError(
            f"the batch size {batch_size} exceeds the {data.train.samples} training samples"
        )
    if full < per_step:
        raise TaskError(
            f"an epoch has {full} batches, fewer than the {per_step} that accumulate asks for"
        )
    return full // per_step


def _refuse_for_loop(loop: Loop, batch_size: int | None, precision: Precision) -> None:
    """Refuse what a custom training loop decides itself."""
    if batch_size is not None:
        raise TaskError(f"{loop.name} is a custom training loop, which makes its own batches")
    if precision != "float32":
        raise TaskError(f"{loop.name} is a custom training loop, which sets its own precision")


def _probe_loop(
    loop: Loop,
    source: str,
    length: Length,
    metric: str | None,
    direction: Direction | None,
    device: torch.device,
) -> TaskFacts:
    """The facts of a custom training loop, which runs until it requests its second interval."""
    if not ((length.epochs or length.steps) and metric and direction):
        raise TaskError(
            f"{loop.name} is a custom training loop: give its epochs and reported metric with "
            "--epochs N --set metric=NAME --set direction=minimize or maximize"
        )
    named: list[tuple[OptimizerFacts, Spacing]] = []
    reported: list[Epoch] = []

    def own_rates(optimizer: Optimizer, spacing: Spacing) -> Trace:
        named.append((optimizer_facts(optimizer), spacing))
        return own_trace(optimizer)

    def note(epoch: Epoch) -> bool:
        reported.append(epoch)
        state = run.state()
        for name, saved in ({} if state is None else state["objects"]).items():
            require_loadable(f"run.checkpoint({name}=...)", saved)
        return True

    course = Course(length=length, metric=metric, schedule=own_rates)
    run = LoopRun(loop, course, seed=0, device=device, interrupted=lambda: bool(reported))
    try:
        run.train(note)
    except Interrupted:  # the loop requested its second interval
        pass
    except Diverged as diverged:
        raise TaskError(f"at the optimizer's own learning rate, {diverged}") from diverged
    ((found, spacing),) = named
    return TaskFacts(
        metric=metric,
        direction=direction,
        batch_size=None,
        source=source,
        **spacing.model_dump(),
        **dataclasses.asdict(found),
    )


def require_loadable(what: str, state: Mapping[str, Any]) -> None:
    """Reject a state that cannot be saved in a checkpoint and loaded again.

    Raises:
        TaskError: naming ``what`` the state belongs to.
    """
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, map_location="meta", weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError) as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"a {foreign[1]}" if foreign else str(error).partition("\n")[0]
        raise TaskError(
            f"{what}: its state_dict() cannot be saved in a checkpoint, which takes tensors, "
            f"numbers, strings, lists and dicts: {reason}"
        ) from error
