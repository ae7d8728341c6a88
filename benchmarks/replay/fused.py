"""Many runs of one task and one seed, trained at once on one thread.

The weights of K lanes are stacked, and `torch.func.vmap` takes the gradients of all of them in one
pass. The update is that of `torch.optim.SGD`::

    g = gradient + weight_decay w
    v = m v + g                                 (v = g in the first step)
    w = w - lr v,  or  w - lr (g + m v)         (Nesterov)

with each lane's own rate lr and momentum m at each step, so that a schedule is two rows of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from clrsearch.schedules import Trace
from replay.tasks import MOMENTUM, SmallTask


def train(
    task: SmallTask, traces: Sequence[Trace], seed: int, dtype: torch.dtype = torch.float32
) -> NDArray[np.float64]:
    """The validation loss of every lane after each epoch: (lanes, epochs), NaN once diverged.

    All lanes share the first weights and the batches.
    """
    rates = _by_step([trace.rates[0] for trace in traces], dtype)  # (T, K)
    own = np.full(task.facts.horizon, MOMENTUM)
    momenta = _by_step(
        [own if trace.momenta is None else trace.momenta[0] for trace in traces], dtype
    )
    network = started(task, seed, dtype)
    weights = {
        name: stacked.detach()
        for name, stacked in stack_module_state([network] * len(traces))[0].items()
    }
    velocities = {name: torch.zeros_like(stacked) for name, stacked in weights.items()}

    def loss(weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return task.loss(functional_call(network, weights, (inputs,)), targets)

    gradients = vmap(grad_and_value(loss), in_dims=(0, None, None))
    validated = vmap(loss, in_dims=(0, None, None))
    held_out = [_cast(each, dtype) for each in task.validation]
    curve = []
    for step, (inputs, targets) in enumerate(task.batches(seed)):
        found, _ = gradients(weights, _cast(inputs, dtype), _cast(targets, dtype))
        for name, weight in weights.items():
            lr, m = (_beside(row[step], weight) for row in (rates, momenta))
            g = found[name].add_(weight, alpha=task.training.weight_decay)
            v = velocities[name].mul_(m).add_(g)
            weight.sub_(lr * (g + m * v) if task.training.nesterov else lr * v)
        if (step + 1) % task.facts.steps_per_epoch == 0:
            with torch.no_grad():
                curve.append(validated(weights, *held_out).double().numpy())
    values = np.stack(curve, axis=1)  # (K, epochs)
    values[~np.isfinite(np.cumsum(values, axis=1))] = np.nan
    return values


def started(task: SmallTask, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The task's model with the weights that a seed begins with."""
    torch.manual_seed(seed)
    return task.model().to(dtype)


def _by_step(rows: Sequence[NDArray[np.float64]], dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.stack(rows, axis=1), dtype=dtype)


def _beside(row: Tensor, stacked: Tensor) -> Tensor:
    """A number per lane, in a shape that multiplies the lanes' weights."""
    return row.reshape(-1, *[1] * (stacked.dim() - 1))


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values
