"""A training loop of the user's own: what it is given, and the run around it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Loop, TaskFacts, as_script, task_code
from clrsearch.training.optimizer import optimizer_facts
from clrsearch.training.playback import TraceScheduler
from clrsearch.training.run import Diverged, Epoch, Interrupted, number
from clrsearch.training.seeding import derive, seed_everything

RATIO_TOLERANCE = 1e-9  # relative, of the groups' rates to the first one's

_NO_SCHEDULER = (
    "run.scheduler(optimizer, steps_per_epoch) was not called before the epochs: "
    "without it no schedule is played"
)


class StopRun(BaseException):
    """Ends a loop where its trial ends; no ``Exception``, so that no loop takes it for its own."""


class OwnRun:
    """What ``train(run)`` is given: a scheduler to step, epochs to train, a place to report to.

    ``device`` is where to train, ``options`` what the study sets under ``[options]``, ``data_dir``
    the folder of ``--data-dir``, and ``total_epochs`` how many epochs a run has. ``seed`` is for
    what seeds itself: a number of this run's own, the same whenever it is run.
    """

    def __init__(
        self,
        loop: Loop,
        facts: TaskFacts,
        trace: Trace,
        *,
        seed: tuple[int, int],
        device: torch.device,
        interrupted: Callable[[], bool],
        on_epoch: Callable[[Epoch], bool],
    ) -> None:
        self.device = device
        self.options = loop.options
        self.data_dir = loop.data_dir
        self.total_epochs = facts.epochs
        self.seed = own_seed(*seed)
        self._facts = facts
        self._trace = trace
        self._seed = seed
        self._interrupted = interrupted
        self._on_epoch = on_epoch
        self._scheduler: TraceScheduler | None = None
        self._optimizer_steps = 0  # in this epoch
        self._done = 0  # epochs
        self._under_way = False  # an epoch is
        self._kept: Mapping[str, Any] = {}
        self._saved: Mapping[str, Any] | None = None  # states to bring back
        self._tested: Mapping[str, float] = {}
        self._ended: BaseException | None = None  # why StopRun was raised ...
        self._stopped = False  # ... or whether it was because the trial has come to its end

    @property
    def done_epochs(self) -> int:
        """How many epochs have been reported, by an earlier attempt or this one."""
        return self._done

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
        """The schedule for an optimizer: call its ``step()`` after each ``optimizer.step()``.

        It sets the rate of each parameter group, in the groups' ratios, and the momentum where the
        schedule has one. ``steps_per_epoch`` counts steps of the optimizer: the batches or, where
        gradients are accumulated, as many fewer. The trial fails where the optimizer or the steps
        are not those that the study was made with.
        """
        self._require(self._scheduler is None, "run.scheduler() was called twice")
        facts, here = self._facts, optimizer_facts(optimizer)
        for what, now, then in (
            ("steps_per_epoch", steps_per_epoch, facts.steps_per_epoch),
            ("the number of parameter groups", len(here.ratios), len(facts.ratios)),
            ("the optimizer's kind of momentum", here.momentum, facts.momentum),
        ):
            self._require(
                now == then, f"{what} is {now} here, and was {then} when the study was made"
            )
        for ratio, probed in zip(here.ratios, facts.ratios, strict=True):
            self._require(
                math.isclose(ratio, probed, rel_tol=RATIO_TOLERANCE),
                f"a parameter group has {ratio:g} times the rate of the first, and had "
                f"{probed:g} times it when the study was made",
            )
        optimizer.register_step_post_hook(self._count)
        self._scheduler = TraceScheduler(optimizer, self._trace, self._leave_if_asked)
        return self._scheduler

    def checkpoint(self, **objects: Any) -> None:
        """Name what is to be saved, before the epochs: the model, the optimizer, anything alike.

        What has ``state_dict()`` and ``load_state_dict()`` is saved at the ends of epochs and,
        where the trial goes on, brought back when they begin. A run that names nothing begins
        again.
        """
        self._require(not self._under_way, "run.checkpoint() comes before run.epochs()")
        complaint = unsavable(objects)
        self._require(complaint is None, str(complaint))
        self._kept = objects
        if self._saved is not None and self._saved.keys() != objects.keys():
            self._saved, self._done = None, 0

    def epochs(self) -> Iterator[int]:
        """The epochs that are left to train, from 0 on; each begins with its own random seed."""
        scheduler = self._known_scheduler()
        if self._saved is not None:
            self._require(bool(self._kept), "run.checkpoint() was not called as it was before")
            for name, each in self._kept.items():
                each.load_state_dict(self._saved[name])
            self._saved = None
        while self._done < self.total_epochs:
            self._leave_if_asked()
            scheduler.seek(self._done * self._facts.steps_per_epoch)
            self._optimizer_steps = 0
            seed_everything(derive(*self._seed, "epoch", self._done + 1))
            self._under_way = True
            yield self._done
            metric = self._facts.metric
            self._require(
                not self._under_way,
                f"epoch {self._done + 1} ended without run.report({metric}=...)",
            )

    def report(self, **metrics: Any) -> None:
        """The validation metrics at the end of an epoch: numbers or scalar tensors.

        It does not return where the trial ends: pruned, diverged, or the worker is to leave.
        """
        epoch, metric = self._done + 1, self._facts.metric
        self._require(self._scheduler is not None, _NO_SCHEDULER)
        self._require(
            self._under_way,
            f"epoch {self._done} was reported twice"
            if self._done
            else "run.report() was called outside of: for epoch in run.epochs()",
        )
        self._require(
            metric in metrics, f"{', '.join(metrics) or 'nothing'} was reported, but not {metric}"
        )
        self._require_steps(epoch)
        try:
            found = {name: number(name, value) for name, value in metrics.items()}
        except TaskError as error:
            self._end(error)
        if not math.isfinite(found[metric]):
            self._end(Diverged(epoch, metric))
        self._done, self._under_way = epoch, False
        try:
            goes_on = self._on_epoch(Epoch(number=epoch, loss=None, metrics=found))
        except BaseException as error:
            self._end(error)
        self._stopped = not goes_on
        if self._stopped:
            raise StopRun

    def test(self, measure: Callable[[], Mapping[str, Any]]) -> None:
        """After the last epoch: metrics on the test split, measured in a confirmation only."""
        _, seed_index = self._seed
        if seed_index > 0:  # a search has but seed index 0
            self._tested = {name: number(name, value) for name, value in measure().items()}

    def _known_scheduler(self) -> TraceScheduler:
        if self._scheduler is None:
            self._end(TaskError(_NO_SCHEDULER))
        return self._scheduler

    def _count(self, *_: object) -> None:
        self._optimizer_steps += 1

    def _leave_if_asked(self) -> None:
        if self._interrupted():
            self._end(Interrupted())

    def _require_steps(self, epoch: int) -> None:
        """Compare the steps of the epoch with those the horizon was counted in."""
        seen, expected = self._known_scheduler().steps, self._facts.steps_per_epoch
        wrong = misstepped(seen, self._optimizer_steps, expected, first=epoch == 1)
        calls = f"scheduler.step() was called {seen} times in epoch {epoch}"
        self._require(wrong is None, f"{calls}{wrong}")

    def _require(self, holds: bool, message: str) -> None:
        if self._stopped or self._ended is not None:
            raise StopRun from self._ended
        if not holds:
            self._end(TaskError(message))

    def _end(self, error: BaseException) -> NoReturn:
        self._ended = error
        raise StopRun from error


class LoopRun:
    """One run of a user's own loop under ``trace`` from (``seed``, ``seed_index``); see `Run`."""

    def __init__(
        self,
        loop: Loop,
        facts: TaskFacts,
        trace: Trace,
        *,
        seed: int,
        seed_index: int = 0,
        device: torch.device,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self._loop = loop
        self._facts = facts
        self._on_epoch: Callable[[Epoch], bool] = lambda epoch: True
        self._since = time.perf_counter()
        self._own = OwnRun(
            loop,
            facts,
            trace,
            seed=(seed, seed_index),
            device=device,
            interrupted=interrupted,
            on_epoch=self._finished,
        )
        seed_everything(derive(seed, seed_index, "init"))

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""
        own, total = self._own, self._facts.epochs
        self._on_epoch = on_epoch
        self._since = time.perf_counter()
        try:
            call(self._loop, own)
        except StopRun:
            pass
        except TaskError:
            if own._ended is None and not own._stopped:
                raise  # else the loop complained of being stopped
        finally:
            self.seconds += time.perf_counter() - self._since
        if own._ended is not None:
            raise own._ended
        if not own._stopped and own._done < total:
            raise TaskError(f"{self._loop.name} returned after {own._done} of {total} epochs")

    def _finished(self, epoch: Epoch) -> bool:
        """Note an epoch; the time that others take over it is not the run's."""
        self.epoch = epoch.number
        self.seconds += time.perf_counter() - self._since
        try:
            return self._on_epoch(epoch)
        finally:
            self._since = time.perf_counter()

    def test(self) -> dict[str, float]:
        """What the loop has given to ``run.test``; nothing where it does not call it."""
        return dict(self._own._tested)

    def state(self) -> dict[str, Any] | None:
        """See :meth:`Run.state`; None within an epoch, and where the loop names nothing to save."""
        own = self._own
        if own._under_way or not own._kept:
            return None
        with task_code(f"saving what {self._loop.name} has named"):
            states = {name: each.state_dict() for name, each in own._kept.items()}
        return {"epoch": own._done, "seconds": self.seconds, "objects": states}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`; the objects are brought back when the loop names them."""
        self._own._saved = state["objects"]
        self._own._done = self.epoch = state["epoch"]
        self.seconds = state["seconds"]


class TrialRun:
    """What ``train(run)`` is given to find out what the search must know of it.

    It ends the loop where that asks for its scheduler.
    """

    def __init__(self, loop: Loop, total_epochs: int, device: torch.device) -> None:
        self.device = device
        self.options = loop.options
        self.data_dir = loop.data_dir
        self.total_epochs = total_epochs
        self.done_epochs = 0
        self.seed = own_seed(0, 0)
        self.found: tuple[Optimizer, int] | None = None

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> NoReturn:
        """See :meth:`OwnRun.scheduler`."""
        self.found = optimizer, steps_per_epoch
        raise StopRun

    def checkpoint(self, **objects: Any) -> None:
        """See :meth:`OwnRun.checkpoint`.

        Raises:
            TaskError: something has no state that could be saved.
        """
        if (complaint := unsavable(objects)) is not None:
            raise TaskError(complaint)

    def _too_early(self, *_: object, **__: object) -> NoReturn:
        raise TaskError(_NO_SCHEDULER)

    epochs = report = test = _too_early


def own_seed(seed: int, seed_index: int) -> int:
    """A seed that any library takes: 31 bits of the one that the run begins with."""
    return derive(seed, seed_index, "init") % 2**31


def call(loop: Loop, run: OwnRun | TrialRun) -> None:
    """Call the loop as its file would be run: with a command line of no arguments."""
    with as_script(loop.name), task_code(f"running {loop.name}"):
        loop.function(run)


def unsavable(objects: Mapping[str, Any]) -> str | None:
    """Which of the objects that a loop names has no state to be saved; None where all have one."""
    for name, each in objects.items():
        if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict")):
            return (
                f"run.checkpoint({name}=...): a {type(each).__name__} has no state_dict() and "
                "load_state_dict()"
            )
    return None


def misstepped(seen: int, optimizer: int, expected: int, *, first: bool) -> str | None:
    """How a loop steps wrongly: so many calls of ``step()`` in an epoch, where others are expected.

    ``optimizer`` is how often the optimizer was stepped; None where nothing is wrong.
    """
    if seen == expected:
        return None
    told = f", and steps_per_epoch is {expected}: "
    if not first:
        return (
            f"{told}every epoch must have the same number of steps; use drop_last=True, and step "
            "it also where a GradScaler skips the optimizer's step"
        )
    if seen == 0:
        return f"{told}call it after each optimizer.step()"
    if seen == 1 and optimizer != 1:
        return f"{told}call it after each optimizer.step(), not once per epoch"
    if seen == optimizer < expected:
        batches = round(expected / seen)
        if batches == 1:
            return f"{told}step it also where a GradScaler skips the optimizer's step"
        return (
            f"{told}it counts steps of the optimizer, of which there are {seen}; where gradients "
            f"are accumulated over {batches} batches, they are not the batches"
        )
    if seen == optimizer:
        return f"{told}it counts steps of the optimizer, of which there are {seen}"
    return f"{told}call it once after each optimizer.step(), of which there were {optimizer}"
