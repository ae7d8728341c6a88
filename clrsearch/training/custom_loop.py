"""Custom training loops: the object passed to them, and the run that wraps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NoReturn

import torch
from torch.nn import Module
from torch.optim import Optimizer

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Length, Loop, Spacing, TaskFacts, describe
from clrsearch.training.contract import numbers_of
from clrsearch.training.data import drawn_apart, mapped
from clrsearch.training.group import Group, Phase
from clrsearch.training.optimizer import has_gradients, require_optimizer, require_same
from clrsearch.training.playback import TraceScheduler, load_optimizer, unwrapped
from clrsearch.training.run import (
    Diverged,
    Epoch,
    Interrupted,
    Unrestorable,
    restoring,
)
from clrsearch.training.seeding import derive, of_rank, seed_everything

_NO_SCHEDULER = (
    "run.scheduler(optimizer, steps_per_epoch) was not called before the epochs: "
    "without it, no schedule is applied"
)
_WHOLE = 0.999  # of the progress that a loop tells at its end; sums of batch sizes may be rounded


class StopRun(BaseException):
    """Unwinds a loop when its trial ends; not an ``Exception``, so that no loop catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The conditions of a loop's run: its length, the metric it must report, and its schedule.

    If ``metric`` is None, any metric may be reported. ``schedule`` returns the trace to play for
    the optimizer and the spacing that follows from the steps that the loop passes in, or raises a
    TaskError to reject them. ``intervals`` is the number of validations, 0 if it is not known yet.
    """

    length: Length
    metric: str | None
    schedule: Callable[[Optimizer, Spacing], Trace]
    intervals: int = 0


def studied(facts: TaskFacts, trace: Trace) -> Course:
    """The course of a study's trial: plays ``trace`` if optimizer and steps match ``facts``."""

    def schedule(optimizer: Optimizer, spacing: Spacing) -> Trace:
        if spacing.horizon != facts.horizon:
            epochs, here, then = spacing.epochs, spacing.steps_per_epoch, facts.steps_per_epoch
            raise TaskError(
                f"steps_per_epoch is {here:g} here, but was {then:g} when the study was created"
                if here != then and epochs == facts.epochs
                else f"a run has {spacing.horizon} steps here, but had {facts.horizon} when the "
                "study was created"
            )
        require_same(optimizer, facts)
        return trace

    length = Length(
        epochs=facts.epochs if facts.steps is None else None,
        steps=facts.steps,
        validate_every=facts.validate_every,
    )
    return Course(length=length, metric=facts.metric, schedule=schedule, intervals=facts.intervals)


@dataclass(slots=True, kw_only=True)
class LoopState:
    """Where a loop's run stands, shared by the object that the loop holds and the run around it.

    Attributes:
        scheduler: the scheduler that the loop has asked for.
        ends: the optimizer steps at the ends of the intervals, once they are known.
        done: number of intervals reported: epochs, unless the study validates more often.
        step: number of optimizer steps taken by then; None if an earlier version has saved.
        under_way: whether an interval has begun and not been reported.
        kept: the objects to save, by name.
        saved: their states to restore when the epochs begin.
        tested: the metrics on the test split.
        ended: the error for which the loop was unwound.
        stopped: whether it was unwound because its trial is over.
    """

    scheduler: TraceScheduler | None = None
    ends: tuple[int, ...] = ()
    done: int = 0
    step: int | None = 0
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
        total_epochs: the number of epochs of a full run; None if its length is in steps.
        total_steps: its length in optimizer steps; None if it is in epochs.
        validate_every: optimizer steps between two validations; None for one after each epoch.
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
        prepared: dict[Any, Any],
        group: Group | None = None,
    ) -> None:
        self.device = device
        self.options = loop.options
        self.data_dir = loop.data_dir
        self.total_epochs = course.length.epochs
        self.total_steps = course.length.steps
        self.validate_every = course.length.validate_every
        self.seed = derive(*seed, "init") % 2**31  # every library accepts 31 bits
        self._course = course
        self._seed = seed
        self._tests = tests
        self._interrupted = interrupted
        self._on_epoch = on_epoch
        self._state = state
        self._prepared = prepared
        self._asked = 0  # calls of prepare()
        self._group = group
        self._rank = 0 if group is None else group.rank
        self._word = "epoch" if self.validate_every is None else "interval"
        self._counts_total = False  # epochs may differ in length, as long as their sum is kept
        self._progress: float | None = None  # as the loop tells it, in place of counting steps
        self._optimizer_steps = 0  # in this interval
        self._trains = False  # a gradient was seen at an optimizer step
        self._begun = False  # run.epochs() has started

    @property
    def metric(self) -> str | None:
        """The name of the study's metric; None while a loop that has not told it is tried out."""
        return self._course.metric

    @property
    def done_epochs(self) -> int:
        """The number of epochs reported so far, including those of earlier attempts.

        Of intervals, if the study validates more often.
        """
        return self._state.done

    def prepare(self, build: Callable[[], Any]) -> Any:
        """What ``build()`` returns, called once per process: tokenised data, a downloaded model.

        Later trials of this process get the same object: the first call in a trial what the first
        call has built, and so on. It is built under a seed that all processes of the study share.
        """
        self._require(
            callable(build),
            f"run.prepare() was given {describe(build)}, but needs a function without arguments",
        )
        key = self._asked  # by the order of the calls: a nested function is another in each trial
        self._asked += 1
        if key not in self._prepared:
            with drawn_apart(derive(self._seed[0], 0, "data"), self.device):
                self._prepared[key] = build()
        return self._prepared[key]

    def scheduler(
        self,
        optimizer: Optimizer,
        steps_per_epoch: int | None = None,
        *,
        total_steps: int | None = None,
    ) -> TraceScheduler:
        """The schedule for an optimizer: call its ``step()`` after each ``optimizer.step()``.

        It sets the learning rate of each parameter group, preserving the ratios between groups, and
        the momentum if the schedule has one. ``steps_per_epoch`` counts optimizer steps: the number
        of batches or, with gradient accumulation, correspondingly fewer. If epochs differ in
        length, give ``total_steps`` instead. The trial fails if the optimizer or the steps differ
        from those the study was created with.
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
        optimizer = unwrapped(optimizer)
        try:
            spacing = self._spacing(steps_per_epoch, total_steps)
            require_optimizer("run.scheduler(): the optimizer", optimizer)
            trace = self._course.schedule(optimizer, spacing)
        except TaskError as error:
            self._end(error)
        self._state.ends = spacing.ends
        if self._state.step is None:  # saved by an earlier version
            self._state.step = (0, *spacing.ends)[self._state.done]
        optimizer.register_step_post_hook(self._count)
        self._state.scheduler = TraceScheduler(optimizer, trace, self._before_step)
        return self._state.scheduler

    def _spacing(self, steps_per_epoch: int | None, total_steps: int | None) -> Spacing:
        """Where the run validates, by the steps that were passed to :meth:`scheduler`."""
        length = self._course.length
        for name, steps in (("steps_per_epoch", steps_per_epoch), ("total_steps", total_steps)):
            self._require(
                steps is None or (isinstance(steps, Integral) and steps > 0),
                f"run.scheduler(): {name} is {describe(steps)}, but must be a positive whole "
                "number",
            )
        given = [steps for steps in (steps_per_epoch, total_steps) if steps is not None]
        self._require(
            len(given) == 1,
            "run.scheduler() needs either steps_per_epoch or total_steps",
        )
        if total_steps is not None:
            self._counts_total = self.validate_every is None
            return length.over(int(total_steps))
        self._require(
            length.steps is None,
            f"run.scheduler() was given steps_per_epoch, but the study trains for {length.steps} "
            "steps: pass total_steps=run.total_steps",
        )
        return length.with_epochs_of(int(given[0]))

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
        self._require(
            self.validate_every is None,
            f"the study validates every {self.validate_every} steps: iterate over run.intervals(), "
            "in place of run.epochs()",
        )
        for _ in self._intervals():
            yield self._state.done

    def intervals(self) -> Iterator[range]:
        """The optimizer steps of each remaining interval, counted from 0 since the beginning.

        An interval ends with a validation and :meth:`report`: after every ``validate_every`` steps,
        or else after each epoch. Each starts with its own random seed.
        """
        for begin, end in self._intervals():
            yield range(begin, end)

    def _intervals(self) -> Iterator[tuple[int, int]]:
        """The first step of each remaining interval, and the first step after it."""
        scheduler, state = self._known_scheduler(), self._state
        self._begun = True
        if state.saved is not None:
            self._bring_back(state.saved)
            state.saved = None
        while state.done < len(state.ends):
            self._require(
                not state.under_way,
                f"{self._word} {state.done + 1} ended without run.report("
                f"{self._course.metric or 'metric'}=...)",
            )
            self._leave_if_asked()
            assert state.step is not None
            scheduler.seek(state.step)
            self._optimizer_steps = 0
            seed_everything(of_rank(derive(*self._seed, "epoch", state.done + 1), self._rank))
            state.under_way = True
            yield state.step, state.ends[state.done]

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
                        each.load_state_dict(mapped(states[name], self._put_back))
        except Unrestorable as error:
            self._end(error)

    def _put_back(self, leaf: Any) -> Any:
        """A saved tensor where it is trained, but for integers, such as a generator's state."""
        numbers = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return leaf.to(self.device) if numbers else leaf

    def report(self, /, *unnamed: object, **metrics: Any) -> None:
        """Report the validation metrics at the end of an epoch, as numbers or scalar tensors.

        At the end of an interval, if the study validates more often. Does not return if the trial
        ends here: it was pruned or diverged, or the worker has to leave. With several processes per
        trial, all of them report, and rank 0's metrics count.
        """
        number, metric = self._state.done + 1, self._course.metric
        scheduler = self._known_scheduler()
        self._require(
            self._state.under_way,
            f"{self._word} {self._state.done} was reported twice"
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
        self._require_steps(number)
        try:
            found = numbers_of("run.report()", metrics)
        except TaskError as error:
            self._end(error)
        if self._group is not None:
            self._group.agree(Phase.REPORT)
            found = self._group.of_first(found)
        if metric is not None and not math.isfinite(found[metric]):
            self._end(Diverged(number, metric, self._word))
        self._state.done, self._state.under_way = number, False
        self._state.step = scheduler.last_epoch
        try:
            goes_on = self._on_epoch(Epoch(number=number, loss=None, metrics=found))
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

    def _before_step(self, progress: float | None) -> None:
        self._leave_if_asked()
        self._require_own_rates()
        if progress is None:
            self._require(
                self._progress is None,
                "scheduler.step() was called without progress, and with it before",
            )
            return
        said = f"scheduler.step(progress={describe(progress)})"
        self._require(
            isinstance(progress, Real) and 0 <= progress <= 1,
            f"{said}: progress is the share of the whole run that is done, from 0 to 1",
        )
        before = self._progress or 0.0
        self._require(progress >= before, f"{said}: it was {before:g} before, and may not fall")
        self._progress = float(progress)

    def _require_own_rates(self) -> None:
        self._require(
            self._state.scheduler is None or not self._state.scheduler.disturbed,
            f"in {self._word} {self._state.done + 1} something else set the optimizer's learning "
            "rate: leave it to run.scheduler()",
        )

    def _leave_if_asked(self) -> None:
        if self._interrupted():
            self._end(Interrupted())

    def _require_steps(self, number: int) -> None:
        """Compare the interval's steps with those passed to :meth:`scheduler`."""
        seen, state = self._known_scheduler().steps, self._state
        times = "once" if seen == 1 else f"{seen} times"
        calls = f"scheduler.step() was called {times} in {self._word} {number}"
        wrong = self._misstepped(seen, number)
        self._require(wrong is None, f"{calls}{wrong}")
        self._require(
            self._trains,
            f"the optimizer of run.scheduler() was never stepped in {self._word} {number}: call "
            "optimizer.step() before scheduler.step()",
        )
        self._require_own_rates()
        last = number == len(state.ends)
        self._require(
            self._progress is None or not last or self._progress >= _WHOLE,
            f"the run is over, but scheduler.step(progress=...) was last told {self._progress}",
        )

    def _misstepped(self, seen: int, number: int) -> str | None:
        """What is wrong with an interval's steps, as the end of a message; None if nothing is."""
        state = self._state
        assert state.step is not None
        if self._progress is not None:
            return None
        if self._counts_total:
            total, horizon = state.step + seen, state.ends[-1]
            if total > horizon or (number == len(state.ends) and total < horizon):
                return f", which makes {total} in all, but total_steps is {horizon}"
            return ", but once after each optimizer.step()" if seen == 0 else None
        expected = state.ends[number - 1] - state.step
        if self.validate_every is None:
            return misstepped(seen, self._optimizer_steps, expected, first=number == 1)
        if seen != expected:
            return f", which has {expected} steps: call it once for each step of run.intervals()"
        return None

    def _require(self, holds: bool, message: str) -> None:
        if self._state.stopped or self._state.ended is not None:
            raise StopRun from self._state.ended
        if not holds:
            self._end(TaskError(message))

    def _end(self, error: BaseException) -> NoReturn:
        self._state.ended = error
        raise StopRun from error


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
