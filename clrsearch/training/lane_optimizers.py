"""Torch's optimizers for many models at once, each with its own rate and momentum.

Weights are (K, P): a row per lane, the parameters of one group flattened one after the other.
Each update is that of the optimizer of the same name in torch.optim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

State = dict[str, Tensor]
STEP = "step"


@dataclass(frozen=True, slots=True)
class Play:
    """What lanes play in a step: (K, 1) in float64, as torch's optimizers have Python's numbers.

    ``keeps`` says that some momentum is 0, in which case torch leaves the velocity as it is.
    """

    rate: Tensor
    momentum: Tensor
    keeps: bool

    def of(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Rate and momentum in the type of the weights."""
        return self.rate.to(weights.dtype), self.momentum.to(weights.dtype)


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

    def update(self, weights: Tensor, gradients: Tensor, state: State, play: Play) -> None:
        """Take a step in place, which uses up the gradients.

        The state's number of steps, (K, 1) in float64, includes this one already.
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

    def update(self, weights: Tensor, gradients: Tensor, state: State, play: Play) -> None:
        """See :class:`Rule`."""
        rate, momentum = play.of(weights)
        _prepare(gradients, weights, self._decay, maximize=self._maximize)
        if self.names:
            velocity, added = state["momentum_buffer"], gradients
            if self._dampening:  # but for the first step
                share = torch.where(state[STEP] == 1, 1.0, 1 - self._dampening)
                added = gradients * share.to(weights.dtype)
            moved = _moved(velocity, momentum, gradients, added, keeps=play.keeps)
            gradients = gradients.addcmul_(velocity, momentum) if self._nesterov else moved
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

    def update(self, weights: Tensor, gradients: Tensor, state: State, play: Play) -> None:
        """See :class:`Rule`."""
        step, mean, square = state[STEP], state["exp_avg"], state["exp_avg_sq"]
        _prepare(gradients, weights, 0 if self._decoupled else self._decay, maximize=self._maximize)
        kind, rate, momentum = weights.dtype, play.rate, play.momentum
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

    def update(self, weights: Tensor, gradients: Tensor, state: State, play: Play) -> None:
        """See :class:`Rule`."""
        rate, momentum = play.of(weights)
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
            gradients = _moved(velocity, momentum, gradients, gradients, keeps=play.keeps)
        weights.addcmul_(gradients, rate, value=-1)


def _moved(
    velocity: Tensor, momentum: Tensor, gradients: Tensor, added: Tensor, *, keeps: bool
) -> Tensor:
    """Let the velocity decay, and add to it; returns the direction to step in.

    With ``keeps``, where the momentum is 0 the velocity stays, and the direction is the gradients.
    """
    if not keeps:
        return velocity.mul_(momentum).add_(added)
    still = momentum == 0
    velocity.copy_(torch.where(still, velocity, velocity * momentum + added))
    return torch.where(still, gradients, velocity)


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
