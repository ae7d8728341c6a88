"""The sequential trainer: one run at a time, with rates and momenta taken from a trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Task, TaskFacts, task_code
from clrsearch.training.averaging import BATCHES
from clrsearch.training.contract import build
from clrsearch.training.data import drawn_apart
from clrsearch.training.feed import Feed
from clrsearch.training.group import Group
from clrsearch.training.learner import Learner
from clrsearch.training.optimizer import require_same
from clrsearch.training.playback import Player
from clrsearch.training.precision import Precision
from clrsearch.training.run import Diverged, Epoch, Interrupted, counted, restoring
from clrsearch.training.seeding import (
    derive,
    of_rank,
    random_state,
    restore_random_state,
    seed_everything,
)
from clrsearch.training.task_data import TaskData

_NO_MORE = object()
LOOKS = 4  # loss checks per interval; each one waits for the device


def warm_up(task: Task) -> None:
    """Build a model and optimizer once: the first in a process makes torch import its compiler."""
    with task_code("building the model"):
        build(task, torch.device("cpu"))


class SequentialRun:
    """A training run of ``task`` under ``trace`` from (``seed``, ``seed_index``); see :class:`Run`.

    The trace's arrays are (groups, T), where T is the horizon. ``interrupted`` is polled between
    optimizer steps and says whether to stop. ``precision`` is that of the forward pass. In a
    ``group``, all ranks make the same run, each with its share of the data.
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
        group: Group | None = None,
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self.inherited = 0  # intervals that another run has trained
        self._metric = facts.metric
        self._ends = (0, *facts.ends)
        self._word = facts.interval
        self._data = data
        self._seed = (seed, seed_index)
        self._device = device
        self._interrupted = interrupted
        self._group = group
        self._rank = 0 if group is None else group.rank
        self._step = 0  # within the current interval
        self._loss = torch.zeros((), device=device)  # summed over its steps
        self._before_validation: dict[str, Any] | None = (
            None  # generator states; validation restarts
        )
        seed_everything(derive(seed, seed_index, "init"))
        with task_code("building the model"):
            self._learner = Learner(task, device, precision, group, trace.averaging)
        require_same(self._learner.given, facts)
        self._averages = trace.averaging is not None
        self._player = Player(trace, self._learner.optimizer)
        self._feed = Feed(data.train, task.accumulate, self._seed)

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""
        while self.epoch < len(self._ends) - 1 and on_epoch(self.next_epoch()):
            pass

    def next_epoch(self) -> Epoch:
        """Train and validate the next interval, or the rest of a resumed one.

        Raises as :meth:`Run.train`.
        """
        started = time.perf_counter()
        try:
            return self._next_epoch(self.epoch + 1)
        finally:
            self.seconds += time.perf_counter() - started

    def _next_epoch(self, number: int) -> Epoch:
        if self._step == 0:
            seed_everything(of_rank(derive(*self._seed, "epoch", number), self._rank))
        with task_code(f"training {self._word} {number}"):
            loss = self._train(number)
        if not math.isfinite(loss):
            raise Diverged(number, "the training loss", self._word)
        self._before_validation = random_state(self._device)
        with task_code(f"validating {self._word} {number}"):
            self._average(number)
            data = self._data.validation
            order = self._until_interrupted(data.in_order())
            metrics = self._learner.validate(order, data.samples)
        require_metric(self._metric, metrics, f" in {self._word} {number}")
        value = metrics[self._metric]
        if not math.isfinite(value):
            raise Diverged(number, self._metric, self._word)
        self.epoch, self._step, self._before_validation = number, 0, None
        self._loss = torch.zeros((), device=self._device)
        return Epoch(number=number, loss=loss, metrics=metrics)

    def test(self) -> dict[str, float]:
        """See :meth:`Run.test`."""
        with task_code("testing"):
            self._average(self.epoch)
            data = self._data.test
            return self._learner.validate(data.in_order(), data.samples)

    def state(self) -> dict[str, Any]:
        """See :meth:`Run.state`.

        Each interval is seeded: no generator state is needed between two of them.
        """
        random = self._before_validation
        if random is None and self._step:
            random = random_state(self._device)
        return {
            "epoch": self.epoch,
            "step": self._step,
            "loss": self._loss.clone(),
            "seconds": self.seconds,
            "inherited": self.inherited,
            "random": random,
            "place": self._feed.place,
            **self._learner.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`."""
        with restoring():
            self._learner.restore(state)
            self.epoch = counted(state["epoch"], len(self._ends) - 1)
            begin, end = (self._ends[self.epoch :] + self._ends[-1:])[:2]
            self._step = counted(state["step"], end - begin)
            if "place" in state:
                self._feed.place = state["place"]
            else:  # saved by an earlier version, which knew epochs only
                self._feed.place = (self.epoch, self._step)
            self.seconds = float(state["seconds"])
            self.inherited = int(state.get("inherited", 0))  # not in those of an earlier version
            self._loss.copy_(state["loss"])
            if state["random"] is not None:
                restore_random_state(state["random"], self._device)

    def begin_from(self, state: Mapping[str, Any]) -> None:
        """Begin where another run was at the end of an interval, instead of training up to there.

        Both must have the same seeds, and traces that are the same up to there: then this run goes
        on as if it had trained from the start itself, bit for bit.

        Raises:
            Unrestorable: the state belongs to another model, or is invalid.
        """
        self.restore(state)
        self.inherited, self.seconds = self.epoch, 0.0

    def _train(self, number: int) -> float:
        """Train one interval and return its mean loss; stops early if that is found not finite."""
        self._learner.model.train()
        begin, end = self._ends[number - 1], self._ends[number]
        steps = end - begin
        look = max(1, steps // LOOKS)
        while self._step < steps:
            if self._interrupted():
                raise Interrupted
            batches = self._feed.draw()
            self._player.play(begin + self._step)
            self._loss += self._learner.step(batches)
            self._step += 1
            if self._step % look == 0 and not math.isfinite(self._sum()):
                break
        return self._sum() / steps

    def _average(self, number: int) -> None:
        """Take the averaged weights of Schedule-Free to measure at the end of an interval.

        The training batches that this may need have an order of their own.
        """
        if not self._averages:
            return
        seed = derive(*self._seed, "statistics", number)
        batches = islice(self._data.train.shuffled(seed), BATCHES)
        with drawn_apart(of_rank(seed, self._rank), self._device):
            drawn = self._learner.average(batches)
        if drawn:  # the training goes on as if it had been resumed here
            self._feed.place = self._feed.place

    def _sum(self) -> float:
        """The loss summed over the interval's steps so far, the same on all ranks of a group."""
        whole = self._loss if self._group is None else self._group.mean(self._loss)
        return whole.item()

    def _until_interrupted(self, order: Iterator[Any]) -> Iterator[Any]:
        """The batches; checks for a stop before fetching each, as that may draw random numbers."""
        while True:
            if self._interrupted():
                raise Interrupted
            batch = next(order, _NO_MORE)
            if batch is _NO_MORE:
                return
            yield batch


def require_metric(metric: str, measured: Mapping[str, float], when: str = "") -> None:
    """Reject metrics that lack the study's metric.

    Raises:
        TaskError: it is missing; the message lists those that are there.
    """
    if metric not in measured:
        known = ", ".join(measured) or "nothing"
        raise TaskError(f"the task does not measure {metric!r}{when}; it measures {known}")
