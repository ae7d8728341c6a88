"""A trace as a scheduler of torch's, for loops that step one themselves."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clrsearch.schedules import Trace, momentum_of


class TraceScheduler(LRScheduler):
    """Plays a trace to an optimizer: call ``step()`` after each step of the optimizer.

    The trace's arrays are (groups, T); after step T the last rate stays. ``steps`` counts the calls
    since :meth:`seek`.
    """

    def __init__(self, optimizer: Optimizer, trace: Trace, on_step: Callable[[], None]) -> None:
        """``on_step`` is called at each step, before the rates are set."""
        self._rates = trace.rates.T.tolist()  # (T, groups), plain floats
        self._momenta = None if trace.momenta is None else trace.momenta.T.tolist()
        self._kind = momentum_of(optimizer)
        self._on_step = on_step
        self.steps = 0
        super().__init__(optimizer)  # takes the first step, to step 0
        self.seek(0)

    def seek(self, step: int) -> None:
        """Set rates and momenta as they are at a step of the horizon, from 0."""
        self.last_epoch = step
        self._play()
        self.steps = 0

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step.

        Raises:
            ValueError: an epoch is given: it counts steps of the optimizer.
        """
        if epoch is not None:
            raise ValueError("this scheduler counts steps of the optimizer: call step() without")
        self._on_step()
        self.steps += 1
        super().step()
        self._play()

    def get_lr(self) -> list[float | Tensor]:
        """The rates at this step, one per group."""
        return [*self._at(self._rates)]

    def state_dict(self) -> dict[str, int]:
        """Where it is."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from where another was."""
        self.last_epoch = state_dict["last_epoch"]
        self._play()

    def _at(self, values: list[list[float]]) -> list[float]:
        return values[min(self.last_epoch, len(values) - 1)]

    def _play(self) -> None:
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self._at(self._rates), strict=True):
            group["lr"] = rate
        self._last_lr = self.get_lr()
        if self._momenta is None:
            return
        for group, momentum in zip(groups, self._at(self._momenta), strict=True):
            if self._kind == "betas":
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
