"""Plays a trace to an optimizer, directly or as a torch scheduler for custom training loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clrsearch.schedules import Trace, momentum_of


class Player:
    """Sets the rates and momenta of an optimizer's groups to those of a trace, (groups, T).

    From step T on, the last values are held. A rate that is a tensor, as capturable and compiled
    optimizers want it, stays that tensor.
    """

    def __init__(self, trace: Trace, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._rates = trace.rates.T.tolist()  # (T, groups), plain floats
        self._momenta = None if trace.momenta is None else trace.momenta.T.tolist()
        self._kind = momentum_of(optimizer)

    def rates(self, step: int) -> list[float]:
        """The groups' rates at ``step``, counted from 0."""
        found: list[float] = self._rates[min(step, len(self._rates) - 1)]
        return found

    def play(self, step: int) -> None:
        """Set the groups' rates, and momenta if the trace has them, to those at ``step``."""
        groups = self._optimizer.param_groups
        for group, rate in zip(groups, self.rates(step), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self._momenta is None:
            return
        momenta = self._momenta[min(step, len(self._momenta) - 1)]
        for group, momentum in zip(groups, momenta, strict=True):
            if self._kind == "betas":
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


class TraceScheduler(LRScheduler):
    """Plays a trace to an optimizer: call ``step()`` after each optimizer step.

    ``steps`` counts the calls since :meth:`seek`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        trace: Trace,
        on_step: Callable[[float | None], None],
    ) -> None:
        """``on_step`` is called at each step with its progress, before the rates are set."""
        self._horizon = trace.rates.shape[1]
        self._player = Player(trace, optimizer)
        self._on_step = on_step
        self.steps = 0
        super().__init__(optimizer)  # calls step() once, to get to step 0
        self.seek(0)

    def seek(self, step: int) -> None:
        """Set the rates and momenta to those at ``step``, counted from 0."""
        self.last_epoch = step
        self._play()
        self.steps = 0

    def step(self, epoch: int | None = None, *, progress: float | None = None) -> None:
        """Advance by one step, or to where a share ``progress`` of the whole run is done.

        That is for a run measured in tokens or samples seen: 0 at its beginning, 1 at its end.

        Raises:
            ValueError: an epoch is given; the scheduler counts optimizer steps.
        """
        if epoch is not None:
            raise ValueError("this scheduler counts optimizer steps: call step() without an epoch")
        self._on_step(progress)
        self.steps += 1
        if progress is not None:
            self.last_epoch = round(progress * self._horizon) - 1
        super().step()
        self._play()

    @property
    def disturbed(self) -> bool:
        """Whether something else has changed a rate since this scheduler set it.

        Rates on a GPU are not looked at, which would wait for it at every step.
        """
        groups = zip(self.optimizer.param_groups, self._last_lr, strict=True)
        return any(_differs(group["lr"], rate) for group, rate in groups)

    def get_lr(self) -> list[float | Tensor]:
        """The rates at this step, one per group."""
        return [*self._player.rates(self.last_epoch)]

    def state_dict(self) -> dict[str, int]:
        """The current step."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from a saved step."""
        self.last_epoch = state_dict["last_epoch"]
        self._play()

    def _play(self) -> None:
        self._player.play(self.last_epoch)
        self._last_lr = self.get_lr()


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state; rates that are tensors stay the tensors that they are."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            rate.copy_(torch.as_tensor(group["lr"]))
            group["lr"] = rate


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, if it is wrapped as Accelerate's is, which has no hooks of its own."""
    inner = getattr(optimizer, "optimizer", None)
    return unwrapped(inner) if isinstance(inner, Optimizer) else optimizer


def _differs(found: float | Tensor, rate: float | Tensor) -> bool:
    if isinstance(found, Tensor):
        return found.device.type == "cpu" and bool(found != torch.tensor(rate, dtype=found.dtype))
    return found != rate
