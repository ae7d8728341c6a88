"""The sequential trainer: one run at a time, with rates and momenta taken from a trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Task, TaskFacts, task_code
from clrsearch.training.contract import (
    augmented,
    build,
    evaluated,
    forward,
    loss_of,
    measured,
    splits_of,
)
from clrsearch.training.data import Batches, batches
from clrsearch.training.optimizer import require_same
from clrsearch.training.playback import Player, load_optimizer
from clrsearch.training.precision import Precision, compute_in
from clrsearch.training.run import Diverged, Epoch, Interrupted, counted, restoring
from clrsearch.training.seeding import (
    derive,
    random_state,
    restore_random_state,
    seed_everything,
)

Batch = tuple[Any, Any]

LOOKS = 4  # loss checks per epoch; each one waits for the device
VALIDATION_BATCH = 8  # times the training batch size, as no gradients are kept


class TaskData:
    """A task's data on a device, shared by the runs of a process.

    The test split is not touched until it is requested, which only a confirmation does.

    Raises:
        TaskError: ``data()`` breaks its contract.
        TaskRaised: the task's own code raised.
    """

    def __init__(self, task: Task, batch_size: int, device: torch.device) -> None:
        with task_code("loading the data"):
            train, validation, test = splits_of(task)
        larger = batch_size * VALIDATION_BATCH
        self.train = batches(train, batch_size, device, "training")
        self.validation = batches(validation, larger, device, "validation")
        self._test = partial(batches, test, larger, device, "test")

    @cached_property
    def test(self) -> Batches:
        """The test split."""
        return self._test()


def warm_up(task: Task) -> None:
    """Build a model and optimizer once: the first in a process makes torch import its compiler."""
    with task_code("building the model"):
        build(task, torch.device("cpu"))


class SequentialRun:
    """A training run of ``task`` under ``trace`` from (``seed``, ``seed_index``); see :class:`Run`.

    The trace's arrays are (groups, T) with T = epochs x steps per epoch. ``interrupted`` is polled
    between batches and says whether to stop. ``precision`` is that of the forward pass.
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
        precision: Precision = "float32",
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self._task = task
        self._metric = facts.metric
        self._epochs = facts.epochs
        self._steps = facts.steps_per_epoch
        self._data = data
        self._seed = (seed, seed_index)
        self._device = device
        self._interrupted = interrupted
        self._step = 0  # within the current epoch
        self._loss = torch.zeros((), device=device)  # summed over its steps
        self._before_validation: dict[str, Any] | None = (
            None  # generator states; validation restarts
        )
        seed_everything(derive(seed, seed_index, "init"))
        with task_code("building the model"):
            self._model, self._optimizer = build(task, device)
        require_same(self._optimizer, facts)
        compute_in(precision, self._model, device)
        self._player = Player(trace, self._optimizer)

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""
        while self.epoch < self._epochs and on_epoch(self.next_epoch()):
            pass

    def next_epoch(self) -> Epoch:
        """Train and validate the next epoch, or the rest of a resumed one.

        Raises as :meth:`Run.train`.
        """
        started = time.perf_counter()
        try:
            return self._next_epoch(self.epoch + 1)
        finally:
            self.seconds += time.perf_counter() - started

    def _next_epoch(self, number: int) -> Epoch:
        if self._step == 0:
            seed_everything(derive(*self._seed, "epoch", number))
        with task_code(f"training epoch {number}"):
            loss = self._train(number)
        if not math.isfinite(loss):
            raise Diverged(number, "the training loss")
        self._before_validation = random_state(self._device)
        with task_code(f"validating epoch {number}"):
            metrics = validate(
                self._task,
                self._model,
                self._until_interrupted(self._data.validation.in_order()),
                self._data.validation.samples,
            )
        require_metric(self._metric, metrics, f" in epoch {number}")
        value = metrics[self._metric]
        if not math.isfinite(value):
            raise Diverged(number, self._metric)
        self.epoch, self._step, self._before_validation = number, 0, None
        self._loss = torch.zeros((), device=self._device)
        return Epoch(number=number, loss=loss, metrics=metrics)

    def test(self) -> dict[str, float]:
        """See :meth:`Run.test`."""
        with task_code("testing"):
            data = self._data.test
            return validate(self._task, self._model, data.in_order(), data.samples)

    def state(self) -> dict[str, Any]:
        """See :meth:`Run.state`. Each epoch is seeded: no generator state is needed in between."""
        random = self._before_validation
        if random is None and self._step:
            random = random_state(self._device)
        return {
            "epoch": self.epoch,
            "step": self._step,
            "loss": self._loss.clone(),
            "seconds": self.seconds,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": random,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`."""
        with restoring():
            self._model.load_state_dict(state["model"])
            load_optimizer(self._optimizer, state["optimizer"])
            self.epoch = counted(state["epoch"], self._epochs)
            self._step = counted(state["step"], self._steps)
            self.seconds = float(state["seconds"])
            self._loss.copy_(state["loss"])
            if state["random"] is not None:
                restore_random_state(state["random"], self._device)

    def _train(self, epoch: int) -> float:
        """Train one epoch and return its mean loss; stops early if the loss is found not finite."""
        self._model.train()
        look = max(1, self._steps // LOOKS)
        order = self._data.train.shuffled(derive(*self._seed, "order", epoch), self._step)
        for inputs, targets in self._until_interrupted(order):
            self._player.play((epoch - 1) * self._steps + self._step)
            self._loss += train_batch(self._task, self._model, self._optimizer, inputs, targets)
            self._step += 1
            if self._step % look == 0 and not math.isfinite(self._loss.item()):
                break
        return self._loss.item() / self._steps

    def _until_interrupted(self, order: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; checks for a stop before fetching each, as that may draw random numbers."""
        while True:
            if self._interrupted():
                raise Interrupted
            batch = next(order, None)
            if batch is None:
                return
            yield batch


def train_batch(
    task: Task, model: torch.nn.Module, optimizer: Optimizer, inputs: Any, targets: Any
) -> torch.Tensor:
    """Take one optimizer step; returns the batch's mean loss before the step, a scalar."""
    optimizer.zero_grad()
    loss = loss_of(task, forward(model, augmented(task, inputs)), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def validate(
    task: Task, model: torch.nn.Module, data: Iterable[tuple[Any, Any]], samples: int
) -> dict[str, float]:
    """The task's metrics of ``model`` over the batches of ``data``, which hold ``samples`` samples.

    Raises:
        TaskError: a metric is not a scalar tensor or a number.
    """
    model.eval()
    sums: dict[str, Any] = {}
    outputs, targets = [], []
    with torch.no_grad():
        for inputs, target in data:
            output = forward(model, inputs)
            for name, value in measured(task, output, target).items():
                sums[name] = sums[name] + value if name in sums else value
            if task.evaluates():
                outputs.append(output)
                targets.append(target)
    metrics = {name: float(value) / samples for name, value in sums.items()}
    if outputs:
        metrics |= evaluated(task, outputs, targets)
    return metrics


def require_metric(metric: str, measured: Mapping[str, float], when: str = "") -> None:
    """Reject metrics that lack the study's metric.

    Raises:
        TaskError: it is missing; the message lists those that are there.
    """
    if metric not in measured:
        known = ", ".join(measured) or "nothing"
        raise TaskError(f"the task does not measure {metric!r}{when}; it measures {known}")
