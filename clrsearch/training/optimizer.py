"""What the search must know of an optimizer."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import Momentum, momentum_of


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerFacts:
    """The part of :class:`~clrsearch.tasks.TaskFacts` that an optimizer tells."""

    ratios: tuple[float, ...]
    groups: tuple[str, ...]
    own_rate: float
    momentum: Momentum
    optimizer: str


def optimizer_facts(optimizer: Optimizer) -> OptimizerFacts:
    """What is known of an optimizer that has not been stepped by a schedule.

    Raises:
        TaskError: it is no optimizer of torch's, or its first rate is not positive.
    """
    if not isinstance(optimizer, Optimizer):
        raise TaskError(f"a torch optimizer is wanted, not {optimizer!r}")
    groups = optimizer.param_groups
    own_rate = float(groups[0]["lr"])
    if not (math.isfinite(own_rate) and own_rate > 0):
        raise TaskError(f"the optimizer's first learning rate must be positive, not {own_rate}")
    return OptimizerFacts(
        ratios=tuple(float(group["lr"]) / own_rate for group in groups),
        groups=tuple(str(group.get("name", index)) for index, group in enumerate(groups)),
        own_rate=own_rate,
        momentum=momentum_of(optimizer),
        optimizer=describe_optimizer(optimizer),
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
