"""Schedule-Free: the optimizer that takes the place of a task's own, and its averaged weights.

A. Defazio et al., "The Road Less Scheduled", arXiv:2405.15682.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import TWINS, schedulefree_package
from clrsearch.tasks import Task

BATCHES = 50
"""Training batches from which the statistics of batch norm are estimated, as in the package's
README."""
UNKNOWN = {"amsgrad": False, "dampening": 0, "maximize": False}
"""Arguments of torch's optimizers that the package lacks, and the values that it implies."""


class Switched(Protocol):
    """An optimizer that turns the weights of its model into their average, and back."""

    def eval(self) -> None: ...

    def train(self) -> None: ...


def require_averaging(task: Task) -> None:
    """Refuse a task that does to its weights what an average of them would not follow.

    Raises:
        TaskError: naming what it does.
    """
    does = "averages its weights itself, with ema" if task.ema is not None else ""
    if task.overrides("after_step"):
        does = "changes its weights in after_step(), which Schedule-Free keeps further copies of"
    if does:
        raise TaskError(f"schedule_free: the task {does}; leave one of them out")


def averaging_twin(optimizer: Optimizer, beta: float) -> Optimizer:
    """The Schedule-Free optimizer in place of a fresh one, in training mode.

    It has the same groups, with their rates, weight decay, second beta and eps.

    Raises:
        TaskError: there is none for this optimizer.
        ScheduleError: the package is not installed.
    """
    name = type(optimizer).__name__
    if type(optimizer).__module__.partition(".")[0] != "torch" or name not in TWINS:
        raise TaskError(
            f"schedule_free: the task's optimizer is {name}, and Schedule-Free takes the place of "
            f"torch's {', '.join(TWINS)} only"
        )
    for group in optimizer.param_groups:
        for key, implied in UNKNOWN.items():
            if group.get(key, implied) != implied:
                raise TaskError(f"schedule_free: {TWINS[name]} has no {key}, as this {name} has")
        if name == "Adam" and group["weight_decay"] and not group["decoupled_weight_decay"]:
            raise TaskError(
                "schedule_free: Adam adds its weight decay to the gradient, and its twin "
                "AdamWScheduleFree does not: use AdamW, or no weight decay"
            )
    kept = ("params", "name", "weight_decay", "eps")
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        betas = {"betas": (beta, group["betas"][1])} if "betas" in group else {"momentum": beta}
        own = {key: group[key] for key in kept if key in group}
        groups.append({**own, **betas, "lr": float(group["lr"])})
    twin: Any = getattr(schedulefree_package(), TWINS[name])(groups)
    twin.train()
    made: Optimizer = twin
    return made


class AveragedWeights:
    """The averaged weights of a model in training, in a ``module`` of its own.

    The optimizer's switch rounds the weights, back and forth. Therefore those in training are put
    back as they were: however often they are looked at, the training stays the same.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.module = deepcopy(model)

    @torch.no_grad()
    def update(self, model: torch.nn.Module, optimizer: Switched) -> None:
        """Copy the average of the ``model``'s weights, and its buffers."""
        trained = list(model.parameters())
        held = [weight.clone() for weight in trained]
        optimizer.eval()
        self.module.load_state_dict(model.state_dict())
        optimizer.train()
        for weight, before in zip(trained, held, strict=True):
            weight.copy_(before)


def estimate_statistics(
    model: torch.nn.Module, forward: Callable[[Any], object], batches: Iterable[Any]
) -> bool:
    """Estimate the statistics of batch norm anew, as means over the ``batches``.

    Returns whether there are any: without them no batch is drawn. Layers that the model itself
    keeps in evaluation mode, as those of a frozen backbone, keep theirs.
    Gradients stay enabled: a training step may take some itself.
    """
    model.train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return True
