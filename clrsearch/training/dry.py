"""A single run of a custom training loop, without a study or a database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from clrsearch.errors import PlanError, TaskError, TaskRaised
from clrsearch.schedules import Trace, momentum_of
from clrsearch.tasks import Length, Loop, Spacing, describe
from clrsearch.training.custom_loop import Course, OwnRun
from clrsearch.training.device import find_device
from clrsearch.training.loop_run import LoopRun
from clrsearch.training.optimizer import own_trace
from clrsearch.training.run import Epoch

MakeScheduler = Callable[[Optimizer, float], LRScheduler]


def dry_run(
    main: Callable[[OwnRun], object],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    validate_every: int | None = None,
    scheduler: MakeScheduler | None = None,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Run a training loop once, the way a trial would, and print what it reports.

        if __name__ == "__main__":
            clrsearch.dry_run(main, epochs=12)

    The length is that of a study: ``epochs``, or ``steps`` with ``validate_every``.
    ``scheduler(optimizer, steps_per_epoch)``, or of all steps if the length is in steps, returns
    any torch scheduler that is stepped after each optimizer step, such as the ``make_scheduler``
    that ``clrsearch best`` prints; without it, the optimizer keeps its own rates. Nothing is
    stored, and the script keeps its command line. ``run.test`` is measured at the end.

    Raises:
        PlanError: an argument is invalid, or the device is not available.
        TaskError: the loop breaks the contract in a way that would also fail a study.
    """
    length = _length(epochs=epochs, steps=steps, validate_every=validate_every)
    if not callable(main):
        raise PlanError(f"dry_run() was given {describe(main)}, but needs a function train(run)")
    if scheduler is not None and not callable(scheduler):
        raise PlanError(
            f"scheduler is {describe(scheduler)}, but must be a function of the optimizer and the "
            "steps per epoch that returns a torch scheduler"
        )
    script, *arguments = sys.argv
    loop = Loop(
        name=f"{Path(script).name}:{getattr(main, '__name__', 'main')}",
        function=main,
        options=options or {},
        arguments=tuple(arguments),
    )

    spacings: list[Spacing] = []

    def schedule(optimizer: Optimizer, spacing: Spacing) -> Trace:
        spacings.append(spacing)
        if scheduler is None:
            return own_trace(optimizer)
        return recorded(
            scheduler,
            optimizer,
            steps_per_epoch=spacing.steps or spacing.steps_per_epoch,
            horizon=spacing.horizon,
        )

    course = Course(length=length, metric=None, schedule=schedule)
    run = LoopRun(loop, course, seed=0, tests=True, device=find_device(device))
    try:
        run.train(lambda interval: _show(interval, spacings[0]))
    except TaskError as error:
        own = error.__cause__
        if own is not None and (isinstance(error, TaskRaised) or isinstance(own, SystemExit)):
            raise own from None  # as if the script had called its loop directly
        raise
    if tested := run.test():
        print(f"test: {_listed(tested)}", flush=True)


def _length(**given: int | None) -> Length:
    """The length of the run.

    Raises:
        PlanError: it is not given, or not by positive whole numbers.
    """
    for name, number in given.items():
        if number is not None and (not isinstance(number, int) or number < 1):
            raise PlanError(f"{name} is {describe(number)}, but must be a positive whole number")
    if given["epochs"] is None and given["steps"] is None:
        raise PlanError("dry_run() needs epochs, or steps and validate_every")
    return Length(**given)


def recorded(
    make: MakeScheduler, optimizer: Optimizer, *, steps_per_epoch: float, horizon: int
) -> Trace:
    """The rates and momenta that a torch scheduler sets on an optimizer like this one.

    Raises:
        TaskError: ``make`` does not return a torch scheduler, or one whose step() needs a metric.
    """
    kind = momentum_of(optimizer)
    groups = [
        {"params": [torch.zeros(1, requires_grad=True)]}
        | {key: group[key] for key in ("name", "lr", "momentum", "betas") if key in group}
        for group in optimizer.param_groups
    ]
    stand_in: Optimizer = Adam(groups) if kind == "betas" else SGD(groups)
    stand_in.defaults = dict(optimizer.defaults)  # where torch's schedulers look up the momentum
    found: Any = make(stand_in, steps_per_epoch)
    if not isinstance(found, LRScheduler) or isinstance(found, ReduceLROnPlateau):
        raise TaskError(
            f"scheduler(optimizer, steps_per_epoch) returned {describe(found)}, but must return a "
            "torch scheduler whose step() needs no metric"
        )
    rates, momenta = np.empty((2, len(groups), horizon))
    for step in range(horizon):
        for index, group in enumerate(stand_in.param_groups):
            rates[index, step] = group["lr"]
            momenta[index, step] = (
                group["betas"][0] if kind == "betas" else group.get("momentum", 0)
            )
        stand_in.step()
        if step + 1 < horizon:
            found.step()
    return Trace(rates=rates, momenta=momenta if momenta.any() else None)


def _show(interval: Epoch, spacing: Spacing) -> bool:
    place = f"{spacing.interval} {interval.number}/{spacing.intervals}"
    print(f"{place}: {_listed(interval.metrics)}", flush=True)
    return True


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in metrics.items())
