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
from clrsearch.tasks import Direction, LoadedTask, Loop, TaskFacts, task_code
from clrsearch.training.contract import build
from clrsearch.training.custom_loop import Course, LoopRun
from clrsearch.training.optimizer import OptimizerFacts, has_gradients, optimizer_facts, own_trace
from clrsearch.training.precision import Precision, compute_in
from clrsearch.training.run import Diverged, Epoch, Interrupted
from clrsearch.training.seeding import derive, seed_everything
from clrsearch.training.sequential import TaskData, require_metric, train_batch, validate


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
    """The facts of a task, with a study's epochs, batch size, metric and direction where given.

    One training step and one validation batch are computed, so that mistakes in the task surface
    early. A custom training loop trains its first epoch, at its optimizer's own rates.

    Raises:
        TaskError: the task breaks its contract; the message names what is wrong.
        TaskRaised: the task's own code raised.
    """
    task, source = loaded
    if isinstance(task, Loop):
        _refuse_for_loop(task, batch_size, precision)
        return _probe_loop(task, source, epochs, metric, direction, device)
    batch_size = batch_size or task.batch_size
    metric = metric or task.metric
    data = TaskData(task, batch_size, device)
    steps = data.train.samples // batch_size
    if steps == 0:
        raise TaskError(
            f"the batch size {batch_size} exceeds the {data.train.samples} training samples"
        )
    seed_everything(derive(0, 0, "init"))
    with task_code("building the model"):
        model, optimizer = build(task, device)
    found = optimizer_facts(optimizer)
    compute_in(precision, model, device)
    with task_code("validating the untrained model"):
        # one batch shows which metrics there are and whether they are finite
        first_batch = islice(data.validation.in_order(), 1)
        measured = validate(task, model, first_batch, data.validation.samples)
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
    model.train()
    with task_code("taking a training step"):
        train_batch(task, model, optimizer, *next(data.train.shuffled(0)))
    require_loadable("model()", model.state_dict())
    require_loadable("optimizer()", optimizer.state_dict())
    if not has_gradients(optimizer):
        raise TaskError(
            "optimizer() trains nothing: after a step none of its parameters has a gradient; "
            "create it from the parameters of the model that it is given"
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


def _refuse_for_loop(loop: Loop, batch_size: int | None, precision: Precision) -> None:
    """Refuse what a custom training loop decides itself."""
    if batch_size is not None:
        raise TaskError(f"{loop.name} is a custom training loop, which makes its own batches")
    if precision != "float32":
        raise TaskError(f"{loop.name} is a custom training loop, which sets its own precision")


def _probe_loop(
    loop: Loop,
    source: str,
    epochs: int | None,
    metric: str | None,
    direction: Direction | None,
    device: torch.device,
) -> TaskFacts:
    """The facts of a custom training loop, which runs until it requests its second epoch."""
    if not (epochs and metric and direction):
        raise TaskError(
            f"{loop.name} is a custom training loop: give its epochs and reported metric with "
            "--epochs N --set metric=NAME --set direction=minimize or maximize"
        )
    named: list[tuple[OptimizerFacts, int]] = []
    reported: list[Epoch] = []

    def own_rates(optimizer: Optimizer, steps: int) -> Trace:
        named.append((optimizer_facts(optimizer), steps))
        return own_trace(optimizer)

    def note(epoch: Epoch) -> bool:
        reported.append(epoch)
        state = run.state()
        for name, saved in ({} if state is None else state["objects"]).items():
            require_loadable(f"run.checkpoint({name}=...)", saved)
        return True

    course = Course(epochs=epochs, metric=metric, schedule=own_rates)
    run = LoopRun(loop, course, seed=0, device=device, interrupted=lambda: bool(reported))
    try:
        run.train(note)
    except Interrupted:  # the loop requested its second epoch
        pass
    except Diverged as diverged:
        raise TaskError(f"at the optimizer's own learning rate, {diverged}") from diverged
    ((found, steps),) = named
    return TaskFacts(
        metric=metric,
        direction=direction,
        epochs=epochs,
        batch_size=None,
        steps_per_epoch=steps,
        source=source,
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
