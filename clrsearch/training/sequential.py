"""The sequential trainer: one run at a time, its rates and momenta read off a trace."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import torch

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace, momentum_of
from clrsearch.tasks import Splits, Task, TaskFacts, task_code
from clrsearch.training.data import batches
from clrsearch.training.run import Diverged, Epoch
from clrsearch.training.seeding import derive, seed_everything

LOOKS = 4  # times per epoch that the loss is looked at: each look waits for the device
VALIDATION_BATCH = 8  # times the training batch: there are no gradients to keep


class TaskData:
    """A task's training and validation data on a device, shared by the runs of a process.

    Raises:
        TaskRaised: the task's own code raised.
    """

    def __init__(self, task: Task, batch_size: int, device: torch.device) -> None:
        with task_code("loading the data"):
            splits = Splits(*task.data())
        self.train = batches(splits.train, batch_size, device)
        self.validation = batches(splits.validation, batch_size * VALIDATION_BATCH, device)


def warm_up(task: Task) -> None:
    """Build a model and an optimizer once: torch imports its compiler at a process's first one."""
    with task_code("building the model"):
        task.optimizer(task.model())


class SequentialRun:
    """One training of ``task`` under ``trace`` from (``seed``, ``seed_index``); see :class:`Run`.

    The trace's arrays are (groups, T) with T = epochs x steps per epoch.
    """

    def __init__(
        self,
        task: Task,
        facts: TaskFacts,
        data: TaskData,
        trace: Trace,
        *,
        seed: int,
        seed_index: int = 0,
        device: torch.device,
    ) -> None:
        self._task = task
        self._metric = facts.metric
        self._steps = facts.steps_per_epoch
        self._data = data
        self._seed = (seed, seed_index)
        self._device = device
        self._rates = trace.rates.T.tolist()  # (T, groups), plain floats
        self._momenta = None if trace.momenta is None else trace.momenta.T.tolist()
        self._epoch = 0
        seed_everything(derive(seed, seed_index, "init"))
        with task_code("building the model"):
            self._model = task.model().to(device)
            self._optimizer = task.optimizer(self._model)
        self._momentum = momentum_of(self._optimizer)

    def next_epoch(self) -> Epoch:
        """Train and validate one more epoch; see :meth:`Run.next_epoch`."""
        started = time.perf_counter()
        self._epoch += 1
        seed_everything(derive(*self._seed, "epoch", self._epoch))
        with task_code(f"training epoch {self._epoch}"):
            loss = self._train()
        if not math.isfinite(loss):
            raise Diverged(self._epoch, "the training loss")
        with task_code(f"validating epoch {self._epoch}"):
            metrics = validate(
                self._task,
                self._model,
                self._data.validation.in_order(),
                self._data.validation.samples,
            )
            value = metrics[self._metric]
        if not math.isfinite(value):
            raise Diverged(self._epoch, self._metric)
        seconds = time.perf_counter() - started
        return Epoch(number=self._epoch, loss=loss, metrics=metrics, seconds=seconds)

    def _train(self) -> float:
        """Train one epoch and return its mean loss, not finite as soon as it was seen not to be."""
        self._model.train()
        total = torch.zeros((), device=self._device)
        look = max(1, self._steps // LOOKS)
        order = self._data.train.shuffled(derive(*self._seed, "order", self._epoch))
        for step, (inputs, targets) in enumerate(order):
            self._follow_trace((self._epoch - 1) * self._steps + step)
            self._optimizer.zero_grad()
            loss = self._task.loss(self._model(self._task.augment(inputs)), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach()
            if step % look == look - 1 and not math.isfinite(total.item()):
                break
        return total.item() / self._steps

    def _follow_trace(self, step: int) -> None:
        groups = self._optimizer.param_groups
        for group, rate in zip(groups, self._rates[step], strict=True):
            group["lr"] = rate
        if self._momenta is not None:
            for group, momentum in zip(groups, self._momenta[step], strict=True):
                if self._momentum == "betas":
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


def validate(
    task: Task, model: torch.nn.Module, data: Iterable[tuple[Any, Any]], samples: int
) -> dict[str, float]:
    """The task's metrics of ``model`` over batches of ``data``, so many samples together.

    Raises:
        TaskError: a metric is not a scalar tensor or a number.
    """
    model.eval()
    sums: dict[str, Any] = {}
    outputs, targets = [], []
    with torch.no_grad():
        for inputs, target in data:
            output = model(inputs)
            for name, value in task.measure(output, target).items():
                sums[name] = sums[name] + value if name in sums else value
            if task.evaluates():
                outputs.append(output)
                targets.append(target)
    metrics = {name: number(name, value) / samples for name, value in sums.items()}
    if outputs:
        whole = task.evaluate(torch.cat(outputs), torch.cat(targets))
        metrics |= {name: number(name, value) for name, value in whole.items()}
    return metrics


def number(name: str, value: Any) -> float:
    """A metric as a float.

    Raises:
        TaskError: it is not a number.
    """
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" (shape {tuple(value.shape)}): sum it" if isinstance(value, torch.Tensor) else ""
        shown = "a tensor" if shape else repr(value)
        raise TaskError(f"the metric {name} is not a number: {shown}{shape}") from error
