"""Torch's optimizers for many models at once, each with its own rate and momentum.

Weights are (K, P): a row per lane, the parameters of one group flattened one after the other.
Each update is that of the optimizer of the same name in torch.optim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

State = dict[str, Tensor]
STEP = "step"


class Rule(Protocol):
    """How an optimizer updates the weights of one of its parameter groups.

    ``names`` are those of the tensors that it keeps for each weight, as torch names them. Its state
    also has the number of finished steps, (K, 1).
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def counts(self) -> bool:
        """Whether torch's optimizer keeps the number of steps too."""

    @property
    def momentum(self) -> float:
        """The group's own momentum, or its first beta."""

    def update(
        self,
        weights: Tensor,
        gradients: Tensor,
        state: State,
        rate: Tensor,
        momentum: Tensor,
        *,
        keeps: bool,
    ) -> None:
        """Take a step in place, which uses up the gradients.

        ``rate``, ``momentum`` and the state's number of steps, which includes this one already, are
        (K, 1) in float64: torch's optimizers have Python's numbers there. ``keeps`` says that some
        momentum is 0, in which case torch leaves the velocity alone.
        """


class _SGD:
    """Stochastic gradient descent, with momentum unless that is constantly 0."""

    counts = False

    def __init__(self, group: Mapping[str, Any], *, plays_momentum: bool) -> None:
        self.momentum = float(group["momentum"])
        self.names = ("momentum_buffer",) if self.momentum or plays_momentum else ()
        self._decay = group["weight_decay"]
        self._dampening = group["dampening"]
        self._nesterov = group["nesterov"]
        self._maximize = group["maximize"]

    def update(
        self,
        weights: Tensor,
        gradients: Tensor,
        state: State,
        rate: Tensor,
        momentum: Tensor,
        *,
        keeps: bool,
    ) -> None:
        """See :class:`Rule`."""
        rate, momentum = rate.to(weights.dtype), momentum.to(weights.dtype)
        _prepare(gradients, weights, self._decay, maximize=self._maximize)
        if self.names:
            velocity = state["momentum_buffer"]
            if self._dampening:  # torch's first step is not dampened
                share = torch.where(state[STEP] == 1, 1.0, 1 - self._dampening).to(weights.dtype)
                _move(velocity, momentum, gradients * share, keeps=keeps)
            else:
                _move(velocity, momentum, gradients, keeps=keeps)
            if self._nesterov:
                gradients.addcmul_(velocity, momentum)
            else:
                gradients = torch.where(momentum == 0, gradients, velocity) if keeps else velocity
        weights.addcmul_(gradients, rate, value=-1)


class _Adam:
    """Adam, and AdamW, whose weight decay does not go through the moments; with AMSGrad."""

    counts = True

    def __init__(self, group: Mapping[str, Any], *, plays_momentum: bool) -> None:
        self.momentum, self._square = map(float, group["betas"])
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        self.names = ("exp_avg", "exp_avg_sq", *largest)
        self._amsgrad = group["amsgrad"]
        self._eps = group["eps"]
        self._decay = group["weight_decay"]
        self._decoupled = group["decoupled_weight_decay"]
        self._maximize = group["maximize"]

    def update(
        self,
        weights: Tensor,
        gradients: Tensor,
        state: State,
        rate: Tensor,
        momentum: Tensor,
        *,
        keeps: bool,
    ) -> None:
        """See :class:`Rule`."""
        step, mean, square = state[STEP], state["exp_avg"], state["exp_avg_sq"]
        _prepare(gradients, weights, 0 if self._decoupled else self._decay, maximize=self._maximize)
        kind = weights.dtype
        if self._decoupled and self._decay:
            weights.mul_((1 - rate * self._decay).to(kind))
        mean.lerp_(gradients, (1 - momentum).to(kind))
        square.mul_(self._square).addcmul_(gradients, gradients, value=1 - self._square)
        if self._amsgrad:
            largest = state["max_exp_avg_sq"]
            square = largest.copy_(torch.maximum(largest, square))
        scale = square.sqrt().div_((1 - self._square**step).sqrt().to(kind)).add_(self._eps)
        weights.addcdiv_(mean * (rate / (1 - momentum**step)).to(kind), scale, value=-1)


class _RMSprop:
    """RMSprop, plain or centered, with momentum unless that is constantly 0."""

    counts = True

    def __init__(self, group: Mapping[str, Any], *, plays_momentum: bool) -> None:
        self.momentum = float(group["momentum"])
        self._moves = bool(self.momentum or plays_momentum)
        self._centered = group["centered"]
        self.names = (
            "square_avg",
            *(["momentum_buffer"] if self._moves else []),
            *(["grad_avg"] if self._centered else []),
        )
        self._alpha = group["alpha"]
        self._eps = group["eps"]
        self._decay = group["weight_decay"]
        self._maximize = group["maximize"]

    def update(
        self,
        weights: Tensor,
        gradients: Tensor,
        state: State,
        rate: Tensor,
        momentum: Tensor,
        *,
        keeps: bool,
    ) -> None:
        """See :class:`Rule`."""
        rate, momentum = rate.to(weights.dtype), momentum.to(weights.dtype)
        _prepare(gradients, weights, self._decay, maximize=self._maximize)
        square = state["square_avg"]
        square.mul_(self._alpha).addcmul_(gradients, gradients, value=1 - self._alpha)
        if self._centered:
            mean = state["grad_avg"]
            mean.lerp_(gradients, 1 - self._alpha)
            square = square.addcmul(mean, mean, value=-1)
        gradients.div_(square.sqrt().add_(self._eps))
        if self._moves:
            velocity = state["momentum_buffer"]
            _move(velocity, momentum, gradients, keeps=keeps)
            gradients = torch.where(momentum == 0, gradients, velocity) if keeps else velocity
        weights.addcmul_(gradients, rate, value=-1)


def _move(velocity: Tensor, momentum: Tensor, gradients: Tensor, *, keeps: bool) -> None:
    """Add gradients to the decayed velocity; with ``keeps`` it stays where the momentum is 0."""
    if keeps:
        new = velocity * momentum + gradients
        velocity.copy_(torch.where(momentum == 0, velocity, new))
    else:
        velocity.mul_(momentum).add_(gradients)


def _prepare(gradients: Tensor, weights: Tensor, decay: float, *, maximize: bool) -> None:
    """Turn the gradients' sign if asked to, and add the weight decay."""
    if maximize:
        gradients.neg_()
    if decay:
        gradients.add_(weights, alpha=decay)


RULES: Mapping[type[Optimizer], Any] = {SGD: _SGD, Adam: _Adam, AdamW: _Adam, RMSprop: _RMSprop}
"""The optimizers that have a rule, by their exact type."""


def rules_of(optimizer: Optimizer, *, plays_momentum: bool) -> list[Rule]:
    """The rule of each parameter group; ``plays_momentum`` says that traces have momenta."""
    make = RULES[type(optimizer)]
    return [make(group, plays_momentum=plays_momentum) for group in optimizer.param_groups]
