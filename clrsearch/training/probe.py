"""What the search must know of a task, found out once, by training for one step."""

from __future__ import annotations

import inspect
import math
from itertools import islice

import torch
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import momentum_of
from clrsearch.tasks import Direction, LoadedTask, TaskFacts, task_code
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
        compute_in(precision, model, device)
        if not isinstance(optimizer, Optimizer):
            raise TaskError(f"optimizer() must return a torch optimizer, not {optimizer!r}")
        groups = optimizer.param_groups
        own_rate = float(groups[0]["lr"])
        if not (math.isfinite(own_rate) and own_rate > 0):
            raise TaskError(f"the optimizer's first learning rate must be positive, not {own_rate}")
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
        ratios=tuple(float(group["lr"]) / own_rate for group in groups),
        groups=tuple(str(group.get("name", index)) for index, group in enumerate(groups)),
        own_rate=own_rate,
        momentum=momentum_of(optimizer),
        optimizer=describe_optimizer(optimizer),
        source=source,
    )


def describe_optimizer(optimizer: Optimizer) -> str:
    """An optimizer's class with what it does not leave at its defaults, its rate aside."""
    stock = inspect.signature(type(optimizer)).parameters
    own = {
        name: value
        for name, value in optimizer.defaults.items()
        if name == "betas" or (name in stock and name != "lr" and value != stock[name].default)
    }
    arguments = ", ".join(f"{name}={value!r}" for name, value in own.items())
    return f"{type(optimizer).__name__}({arguments})"
