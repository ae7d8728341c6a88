"""Custom training loops: the object passed to them, and the run that wraps them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NoReturn

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Loop, TaskFacts, as_script, describe, task_code
from clrsearch.training.contract import numbers_of
from clrsearch.training.data import moved
from clrsearch.training.optimizer import has_gradients, require_optimizer, require_same
from clrsearch.training.playback import TraceScheduler, load_optimizer
from clrsearch.training.run import (
    Diverged,
    Epoch,
    Interrupted,
    Unrestorable,
    counted,
    restoring,
)
from clrsearch.training.seeding import derive, seed_everything

_NO_SCHEDULER = (
    "run.scheduler(optimizer, steps_per_epoch) was not called before the epochs: "
    "without it, no schedule is applied"
)


class StopRun(BaseException):
    """Unwinds a loop when its trial ends; not an ``Exception``, so that no loop catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The conditions of a loop's run: its epochs, the metric it must report, and its schedule.

    If ``metric`` is None, any metric may be reported. ``schedule`` returns the trace to play for
    the optimizer and the steps per epoch that the loop passes in, or raises a TaskError to reject
    them.
    """

    epochs: int
    metric: str | None
    schedule: Callable[[Optimizer, int], Trace]


def studied(facts: TaskFacts, trace: Trace) -> Course:
    """The course of a study's trial: plays ``trace`` if optimizer and steps match ``facts``."""

    def schedule(optimizer: Optimizer, steps: int) -> Trace:
        if steps != facts.steps_per_epoch:
            raise TaskError(
                f"steps_per_epoch is {steps} here, but was {facts.steps_per_epoch} when the study "
                "was created"
            )
        require_same(optimizer, facts)
        return trace

    return Course(epochs=facts.epochs, metric=facts.metric, schedule=schedule)


@dataclass(slots=True, kw_only=True)
class LoopState:
    """Where a loop's run stands, shared by the object that the loop holds and the run around it.

    Attributes:
        scheduler: the scheduler that the loop has asked for.
        done: number of epochs reported.
        under_way: whether an epoch has begun and not been reported.
        kept: the objects to save, by name.
        saved: their states to restore when the epochs begin.
        tested: the metrics on the test split.
        ended: the error for which the loop was unwound.
        stopped: whether it was unwound because its trial is over.
    """

    scheduler: TraceScheduler | None = None
    done: int = 0
    under_way: bool = False
    kept: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    tested: Mapping[str, float] = field(default_factory=dict)
    ended: BaseException | None = None
    stopped: bool = False


class OwnRun:
    """The object passed to ``train(run)``: provides a scheduler and epochs, and receives reports.

    Attributes:
        device: where to train.
        options: the values under ``[options]`` in the study.
        data_dir: the folder given by ``--data-dir``.
        total_epochs: the number of epochs of a full run.
        seed: a seed for code that seeds itself; specific to this run, and the same each time it is
            run.
    """

    def __init__(
        self,
        loop: Loop,
        course: Course,
        state: LoopState,
        *,
        seed: tuple[int, int],
        tests: bool,
        device: torch.device,
        interrupted: Callable[[], bool],
        on_epoch: Callable[[Epoch], bool],
    ) -> None:
        self.device = device
        self.options = loop.options
        self.data_dir = loop.data_dir
        self.total_epochs = course.epochs
        self.seed = derive(*seed, "init") % 2**31  # every library accepts 31 bits
        self._course = course
        self._seed = seed
        self._tests = tests
        self._interrupted = interrupted
        self._on_epoch = on_epoch
        self._state = state
        self._steps = 0  # per epoch
        self._optimizer_steps = 0  # in this epoch
        self._trains = False  # a gradient was seen at an optimizer step
        self._begun = False  # run.epochs() has started

    @property
    def metric(self) -> str | None:
        """The name of the study's metric; None while a loop that has not told it is tried out."""
        return self._course.metric

    @property
    def done_epochs(self) -> int:
        """The number of epochs reported so far, including those of earlier attempts."""
        return self._state.done

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
        """The schedule for an optimizer: call its ``step()`` after each ``optimizer.step()``.

        It sets the learning rate of each parameter group, preserving the ratios between groups, and
        the momentum if the schedule has one. ``steps_per_epoch`` counts optimizer steps: the number
        of batches or, with gradient accumulation, correspondingly fewer. The trial fails if the
        optimizer or the steps differ from those the study was created with.
        """
        self._require(
            self._state.scheduler is None,
            "run.scheduler() was called twice: call it once, with one optimizer",
        )
        self._require(
            isinstance(optimizer, Optimizer),
            f"run.scheduler() was given {describe(optimizer)}, but needs a torch optimizer: "
            "run.scheduler(optimizer, steps_per_epoch)",
        )
        self._require(
            isinstance(steps_per_epoch, Integral) and steps_per_epoch > 0,
            f"run.scheduler(): steps_per_epoch is {describe(steps_per_epoch)}, but must be a "
            "positive whole number",
        )
        self._steps = int(steps_per_epoch)
        try:
            require_optimizer("run.scheduler(): the optimizer", optimizer)
            trace = self._course.schedule(optimizer, self._steps)
        except TaskError as error:
            self._end(error)
        optimizer.register_step_post_hook(self._count)
        self._state.scheduler = TraceScheduler(optimizer, trace, self._before_step)
        return self._state.scheduler

    def checkpoint(self, /, *unnamed: object, **objects: Any) -> None:
        """Register the objects to save, before the epochs: the model, the optimizer and the like.

        Each needs ``state_dict()`` and ``load_state_dict()``. They are saved between epochs and, if
        the trial is resumed, restored when ``run.epochs()`` starts. A run that registers nothing
        starts over.
        """
        self._require(not self._begun, "run.checkpoint() must be called before run.epochs()")
        self._require(
            not unnamed,
            "run.checkpoint() takes keyword arguments: run.checkpoint(model=model, ...)",
        )
        for name, each in objects.items():
            self._require(
                hasattr(each, "state_dict") and hasattr(each, "load_state_dict"),
                f"run.checkpoint({name}=...): {describe(each)} has no state_dict() and "
                "load_state_dict()",
            )
        self._state.kept = objects
        if self._state.saved is not None and self._state.saved.keys() != objects.keys():
            named = ", now ".join(", ".join(names) for names in (self._state.saved, objects))
            self._end(Unrestorable(f"run.checkpoint() was given other names before: {named}"))

    def epochs(self) -> Iterator[int]:
        """The remaining epochs, counted from 0; each starts with its own random seed."""
        scheduler = self._known_scheduler()
        self._begun = True
        if self._state.saved is not None:
            self._bring_back(self._state.saved)
            self._state.saved = None
        while self._state.done < self.total_epochs:
            self._require(
                not self._state.under_way,
                f"epoch {self._state.done + 1} ended without run.report("
                f"{self._course.metric or 'metric'}=...)",
            )
            self._leave_if_asked()
            scheduler.seek(self._state.done * self._steps)
            self._optimizer_steps = 0
            seed_everything(derive(*self._seed, "epoch", self._state.done + 1))
            self._state.under_way = True
            yield self._state.done

    def _bring_back(self, states: Mapping[str, Any]) -> None:
        try:
            with restoring():
                if not self._state.kept:
                    raise Unrestorable("run.checkpoint() was called before, but not this time")
                for name, each in self._state.kept.items():
                    if isinstance(each, Optimizer):
                        load_optimizer(each, states[name])
                    elif isinstance(each, Module):  # copies it to where its parameters are
                        each.load_state_dict(states[name])
                    else:
                        each.load_state_dict(moved(states[name], self.device))
        except Unrestorable as error:
            self._end(error)

    def report(self, /, *unnamed: object, **metrics: Any) -> None:
        """Report the validation metrics at the end of an epoch, as numbers or scalar tensors.

        Does not return if the trial ends here: it was pruned or diverged, or the worker has to
        leave.
        """
        epoch, metric = self._state.done + 1, self._course.metric
        self._require(self._state.scheduler is not None, _NO_SCHEDULER)
        self._require(
            self._state.under_way,
            f"epoch {self._state.done} was reported twice"
            if self._state.done
            else "run.report() was called outside the loop over run.epochs()",
        )
        self._require(not unnamed, "run.report() takes keyword arguments: run.report(accuracy=0.9)")
        names = ", ".join(metrics) or "nothing"
        self._require(
            bool(metrics) if metric is None else metric in metrics,
            "run.report() was given no metric"
            if metric is None
            else f"run.report() was given {names}, but not {metric}, the study's metric: report "
            "it, or use --set metric=NAME",
        )
        self._require_steps(epoch)
        try:
            found = numbers_of("run.report()", metrics)
        except TaskError as error:
            self._end(error)
        if metric is not None and not math.isfinite(found[metric]):
            self._end(Diverged(epoch, metric))
        self._state.done, self._state.under_way = epoch, False
        try:
            goes_on = self._on_epoch(Epoch(number=epoch, loss=None, metrics=found))
        except BaseException as error:
            self._end(error)
        self._state.stopped = not goes_on
        if self._state.stopped:
            raise StopRun

    def test(self, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Test-split metrics, after the last epoch; ``measure`` is called only if they are needed.

        They are needed in a confirmation and in a dry run, not during the search.
        """
        self._require(
            callable(measure),
            f"run.test() was given {describe(measure)}, but needs a function that returns metrics: "
            "run.test(lambda: {...})",
        )
        if self._tests:
            found = measure()
            try:
                self._state.tested = numbers_of("run.test()", found)
            except TaskError as error:
                self._end(error)

    def _known_scheduler(self) -> TraceScheduler:
        if self._state.scheduler is None:
            self._end(TaskError(_NO_SCHEDULER))
        return self._state.scheduler

    def _count(self, optimizer: Optimizer, *_: object) -> None:
        self._optimizer_steps += 1
        if not self._trains:
            self._require(
                has_gradients(optimizer),
                "the optimizer trains nothing: at its first step none of its parameters had a "
                "gradient; create it from the parameters of the model that is trained, and call "
                "zero_grad() before backward()",
            )
            self._trains = True

    def _before_step(self) -> None:
        self._leave_if_asked()
        self._require_own_rates()

    def _require_own_rates(self) -> None:
        self._require(
            self._state.scheduler is None or not self._state.scheduler.disturbed,
            f"in epoch {self._state.done + 1} something else set the optimizer's learning rate: "
            "leave it to run.scheduler()",
        )

    def _leave_if_asked(self) -> None:
        if self._interrupted():
            self._end(Interrupted())

    def _require_steps(self, epoch: int) -> None:
        """Compare the epoch's steps with the ``steps_per_epoch`` passed to :meth:`scheduler`."""
        seen, expected = self._known_scheduler().steps, self._steps
        wrong = misstepped(seen, self._optimizer_steps, expected, first=epoch == 1)
        times = "once" if seen == 1 else f"{seen} times"
        calls = f"scheduler.step() was called {times} in epoch {epoch}"
        self._require(wrong is None, f"{calls}{wrong}")
        self._require(
            self._trains,
            f"the optimizer of run.scheduler() was never stepped in epoch {epoch}: call "
            "optimizer.step() before scheduler.step()",
        )
        self._require_own_rates()

    def _require(self, holds: bool, message: str) -> None:
        if self._state.stopped or self._state.ended is not None:
            raise StopRun from self._state.ended
        if not holds:
            self._end(TaskError(message))

    def _end(self, error: BaseException) -> NoReturn:
        self._state.ended = error
        raise StopRun from error


class LoopRun:
    """A run of a custom training loop from (``seed``, ``seed_index``); see :class:`Run`.

    ``tests`` says whether to measure the test split, as in a confirmation.
    """

    def __init__(
        self,
        loop: Loop,
        course: Course,
        *,
        seed: int,
        seed_index: int = 0,
        tests: bool = False,
        device: torch.device,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self._loop = loop
        self._on_epoch: Callable[[Epoch], bool] = lambda epoch: True
        self._since = time.perf_counter()
        self._state = LoopState()
        self._own = OwnRun(
            loop,
            course,
            self._state,
            seed=(seed, seed_index),
            tests=tests,
            device=device,
            interrupted=interrupted,
            on_epoch=self._finished,
        )
        seed_everything(derive(seed, seed_index, "init"))

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""
        state, total = self._state, self._own.total_epochs
        self._on_epoch = on_epoch
        self._since = time.perf_counter()
        try:
            script, _, _ = self._loop.name.partition(":")
            with as_script(script, self._loop.arguments), task_code(f"running {self._loop.name}"):
                self._loop.function(self._own)
        except StopRun:
            pass
        except TaskError:
            if state.ended is None and not state.stopped:
                raise  # otherwise the loop failed because it was stopped
        finally:
            self.seconds += time.perf_counter() - self._since
        if state.ended is not None:
            raise state.ended
        if state.scheduler is None:
            raise TaskError(
                f"{self._loop.name} ended without calling run.scheduler(optimizer, steps_per_epoch)"
            )
        if not state.stopped and state.done < total:
            raise TaskError(f"{self._loop.name} returned after {state.done} of {total} epochs")

    def _finished(self, epoch: Epoch) -> bool:
        """Record an epoch; the time spent in ``on_epoch`` does not count."""
        self.epoch = epoch.number
        self.seconds += time.perf_counter() - self._since
        try:
            return self._on_epoch(epoch)
        finally:
            self._since = time.perf_counter()

    def test(self) -> dict[str, float]:
        """The metrics passed to ``run.test``; empty if the loop does not call it."""
        return dict(self._state.tested)

    def state(self) -> dict[str, Any] | None:
        """See :meth:`Run.state`; None within an epoch, or if the loop registers nothing to save."""
        state = self._state
        if state.under_way or not state.kept:
            return None
        with task_code(f"saving the checkpoint of {self._loop.name}"):
            states = {name: each.state_dict() for name, each in state.kept.items()}
        return {"epoch": state.done, "seconds": self.seconds, "objects": states}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`; the objects are restored in :meth:`OwnRun.epochs`."""
        with restoring():
            self._state.saved = dict(state["objects"])
            self._state.done = self.epoch = counted(state["epoch"], self._own.total_epochs)
            self.seconds = float(state["seconds"])


def misstepped(seen: int, optimizer: int, expected: int, *, first: bool) -> str | None:
    """What is wrong with a loop's steps in an epoch, as the end of a message; None if nothing is.

    ``seen`` and ``expected`` count calls of ``scheduler.step()``, ``optimizer`` the optimizer's
    steps; ``first`` says whether this is the first epoch.
    """
    if seen == expected:
        return None
    told = f", but steps_per_epoch is {expected}: "
    if not first:
        return (
            f"{told}every epoch must have the same number of steps; use drop_last=True, and call "
            "it even when a GradScaler skips the optimizer's step"
        )
    if seen == 0:
        return f"{told}call it after each optimizer.step()"
    if seen == 1 and optimizer != 1:
        return f"{told}call it after each optimizer.step(), not once per epoch"
    if seen == optimizer < expected:
        batches = round(expected / seen)
        if batches == 1:
            return f"{told}call it even when a GradScaler skips the optimizer's step"
        return (
            f"{told}it counts optimizer steps, of which there were {seen}; with gradients "
            f"accumulated over {batches} batches, that is not the number of batches"
        )
    if seen == optimizer:
        return f"{told}it counts optimizer steps, of which there were {seen}"
    return f"{told}call it once after each optimizer.step(), of which there were {optimizer}"
