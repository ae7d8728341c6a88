"""What the search needs to know about an optimizer."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import numpy as np
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import Momentum, Trace, momentum_of
from clrsearch.tasks import TaskFacts, WeightDecay

RATIO_TOLERANCE = 1e-9  # relative; for the ratios of the groups' rates to the first group's


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerFacts:
    """The part of :class:`~clrsearch.tasks.TaskFacts` that is read from the optimizer."""

    ratios: tuple[float, ...]
    groups: tuple[str, ...]
    base_lr: float
    momentum: Momentum
    optimizer: str


def require_optimizer(what: str, optimizer: Optimizer) -> None:
    """Reject an optimizer that no schedule can be applied to; ``what`` names it in the message.

    Raises:
        TaskError: another scheduler has set its rates, they are invalid, or timm's schedulers
            would still change them.
    """
    groups = optimizer.param_groups
    if any("initial_lr" in group for group in groups):
        raise TaskError(
            f"{what} has already been used with a scheduler: remove yours, since the study "
            "provides one, and create a new optimizer"
        )
    if any("lr_scale" in group for group in groups):
        raise TaskError(
            f"{what} has groups with timm's lr_scale, which only timm's own schedulers apply: "
            'apply it to their rates first, group["lr"] *= group.pop("lr_scale")'
        )
    rates = [float(group["lr"]) for group in groups]
    for rate in rates:
        if not (math.isfinite(rate) and rate >= 0):
            raise TaskError(f"{what} has a group with the learning rate {rate}")
    if rates[0] == 0:
        raise TaskError(f"{what}: the first learning rate must be positive, not {rates[0]}")


def change_weight_decay(optimizer: Optimizer, asked: WeightDecay) -> None:
    """Change an optimizer's weight decay; groups without any stay so, unless all are without.

    Raises:
        TaskError: it has no weight decay, or none that a factor could change.
    """
    groups = optimizer.param_groups
    if not all("weight_decay" in group for group in groups):
        raise TaskError(f"weight_decay: {type(optimizer).__name__} has none")
    none = not any(group["weight_decay"] for group in groups)
    if none and asked.relative:
        raise TaskError(
            f"weight_decay: that of {type(optimizer).__name__} is 0, which a factor of "
            f"{asked.value:g} does not change: give a number"
        )
    for group in (*groups, optimizer.defaults):
        if none or group["weight_decay"]:
            group["weight_decay"] = asked.of(group["weight_decay"])


def optimizer_facts(optimizer: Optimizer) -> OptimizerFacts:
    """The facts of an optimizer that passes :func:`require_optimizer`."""
    groups = optimizer.param_groups
    base_lr = float(groups[0]["lr"])
    return OptimizerFacts(
        ratios=tuple(float(group["lr"]) / base_lr for group in groups),
        groups=tuple(str(group.get("name", index)) for index, group in enumerate(groups)),
        base_lr=base_lr,
        momentum=momentum_of(optimizer),
        optimizer=describe_optimizer(optimizer),
    )


def require_same(optimizer: Optimizer, facts: TaskFacts) -> None:
    """Reject an optimizer whose groups or momentum differ from those the study was created with.

    Raises:
        TaskError: naming the difference, with both values.
    """
    here = optimizer_facts(optimizer)
    for what, now, then in (
        ("the number of parameter groups", len(here.ratios), len(facts.ratios)),
        ("the optimizer's kind of momentum", here.momentum, facts.momentum),
    ):
        if now != then:
            raise TaskError(f"{what} is {now} here, but was {then} when the study was created")
    for ratio, probed in zip(here.ratios, facts.ratios, strict=True):
        if not math.isclose(ratio, probed, rel_tol=RATIO_TOLERANCE):
            raise TaskError(
                f"a parameter group has {ratio:g} times the rate of the first, but had "
                f"{probed:g} times when the study was created"
            )


def has_gradients(optimizer: Optimizer) -> bool:
    """Whether any of the optimizer's parameters has a gradient."""
    return any(
        weight.grad is not None for group in optimizer.param_groups for weight in group["params"]
    )


def own_trace(optimizer: Optimizer) -> Trace:
    """The optimizer's own rates as a constant trace; (groups, 1)."""
    rates = [[float(group["lr"])] for group in optimizer.param_groups]
    return Trace(rates=np.array(rates), momenta=None)


def describe_optimizer(optimizer: Optimizer) -> str:
    """The optimizer's class with its betas and its non-default arguments other than the rate."""
    stock = inspect.signature(type(optimizer)).parameters
    own = {
        name: value
        for name, value in optimizer.defaults.items()
        if name == "betas" or (name in stock and name != "lr" and value != stock[name].default)
    }
    arguments = ", ".join(f"{name}={value!r}" for name, value in own.items())
    return f"{type(optimizer).__name__}({arguments})"
