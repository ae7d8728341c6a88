"""Lanes: K runs of a task that are trained together, interval by interval.

Each is a run in every respect: it has its own trace, seeds, metrics, checkpoint and end, and takes
the seat of one that has left. A checkpoint is that of a run alone, so that either can go on from
it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from clrsearch.errors import TaskError
from clrsearch.schedules import Trace
from clrsearch.tasks import Task, TaskFacts, task_code
from clrsearch.training.data import drawn_apart
from clrsearch.training.lane_learner import Lane, LaneLearner
from clrsearch.training.learner import Learner
from clrsearch.training.optimizer import require_same
from clrsearch.training.precision import Precision
from clrsearch.training.run import Diverged, Epoch, Interrupted, counted, restoring
from clrsearch.training.seeding import derive, generators_in, plain_state
from clrsearch.training.sequential import LOOKS, require_metric
from clrsearch.training.stream import Stream, drawn_by
from clrsearch.training.task_data import TaskData


class LaneRun:
    """A run in one of the :class:`Lanes`; see :class:`Run`.

    It does not train by itself: :meth:`Lanes.advance` takes all of them to the end of their next
    interval, whose :meth:`outcome` each then has.
    """

    def __init__(
        self, lanes: Lanes, lane: int, trace: Trace, stream: Stream, seed: tuple[int, int]
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self.lane = lane
        self.trace = trace
        self.stream = stream
        self.position = stream.now  # after the last step
        self.seed = seed
        self.step = 0  # within the current interval
        self.ended: Epoch | Diverged | TaskError | None = None
        self._lanes = lanes

    @property
    def place(self) -> tuple[object, ...]:
        """Runs at the same place have the same batches from there on."""
        return (*self.seed, self.epoch, self.step, *self.position[0])

    def outcome(self) -> Epoch:
        """The interval that has just ended, and from now on counts as finished.

        Raises:
            Diverged: in it, the loss or the metric stopped being finite.
            TaskError: its metrics could not be measured.
        """
        ended, self.ended = self.ended, None
        if isinstance(ended, Exception):
            raise ended
        assert ended is not None
        self._lanes.begin_next(self)
        return ended

    def test(self) -> dict[str, float]:
        """See :meth:`Run.test`."""
        return self._lanes.test(self)

    def state(self) -> dict[str, Any]:
        """See :meth:`Run.state`."""
        return self._lanes.state(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`."""
        with restoring():
            self._lanes.restore(self, state)

    def leave(self) -> None:
        """Give up the seat; the run cannot be used any more."""
        self._lanes.vacate(self)


class Lanes:
    """Trains up to K runs of a task together, each in a seat of its own; see :class:`LaneRun`.

    Attributes:
        size: the number of seats.
        learner: trains their models.
        retired: whether they were given up.
    """

    def __init__(
        self,
        task: Task,
        facts: TaskFacts,
        data: TaskData,
        learner: LaneLearner,
        *,
        device: torch.device,
        precision: Precision = "float32",
    ) -> None:
        """Make a seat for each lane of the ``learner``."""
        self.size = learner.size
        self.learner = learner
        self.retired = False
        self._task = task
        self._facts = facts
        self._data = data
        self._device = device
        self._precision = precision
        self._ends = (0, *facts.ends)
        self._seats: list[LaneRun | None] = [None] * self.size
        self._losses = torch.zeros(self.size, device=device)  # summed over an interval's steps
        self._single: Learner  # the one that was built last, for what is done to a lane alone

    def retire(self) -> None:
        """Give up the lanes for good, and the memory that they take."""
        self.retired = True
        self._seats = []
        del self.learner, self._single

    @property
    def free(self) -> int:
        """The number of free seats."""
        return self._seats.count(None)

    def run(self, trace: Trace, *, seed: int, seed_index: int, **_: Any) -> LaneRun:
        """Seat a run that has not started; further options are those of other runs.

        Raises:
            TaskError: the optimizer is not the one that the study was created with.
        """
        lane = self._seats.index(None)
        init = derive(seed, seed_index, "init")
        with task_code("building the model"), drawn_apart(init, self._device):
            self._single = Learner(self._task, self._device, self._precision)
        require_same(self._single.optimizer, self._facts)
        self.learner.put(lane, self._single)
        self._losses[lane] = 0
        seeds = (seed, seed_index)
        reader = self._data.train.apart(self.size)
        assert reader is not None  # see choose_lanes()
        stream = Stream(self._task, reader, seeds, self._device)
        run = self._seats[lane] = LaneRun(self, lane, trace, stream, seeds)
        return run

    def vacate(self, run: LaneRun) -> None:
        """Free a run's seat."""
        if not self.retired:
            self._seats[run.lane] = None

    def advance(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Take every seated run to the end of its next interval, and validate it there.

        Those with fewer steps to go wait for the others. ``interrupted`` is polled between steps.

        Raises:
            Interrupted: the runs were asked to stop; each can be saved.
            TaskError: the task cannot be trained like this, or broke its contract.
        """
        started = time.perf_counter()
        runs = [run for run in self._seats if run is not None]
        try:
            with task_code("training in lanes"):
                self._train(runs, interrupted)
            means = self._losses.tolist()
            going = []
            for run in runs:
                number = run.epoch + 1
                loss = means[run.lane] / self._length(run)
                if math.isfinite(loss):
                    going.append((run, number, loss))
                else:
                    run.ended = Diverged(number, "the training loss", self._facts.interval)
            if going:
                found = self._validated([run for run, _, _ in going], interrupted)
                for (run, number, loss), metrics in zip(going, found, strict=True):
                    run.ended = (
                        metrics
                        if isinstance(metrics, TaskError)
                        else self._judged(number, loss, metrics)
                    )
        finally:
            share = (time.perf_counter() - started) / len(runs)
            for run in runs:
                run.seconds += share

    def begin_next(self, run: LaneRun) -> None:
        """Let a run go on to its next interval."""
        run.epoch, run.step = run.epoch + 1, 0
        self._losses[run.lane] = 0

    def _length(self, run: LaneRun) -> int:
        """The steps of a run's current interval."""
        return self._ends[run.epoch + 1] - self._ends[run.epoch]

    def _judged(self, number: int, loss: float, metrics: Mapping[str, float]) -> Epoch | Diverged:
        facts = self._facts
        require_metric(facts.metric, metrics, f" in {facts.interval} {number}")
        if not math.isfinite(metrics[facts.metric]):
            return Diverged(number, facts.metric, facts.interval)
        return Epoch(number=number, loss=loss, metrics=metrics)

    def _train(self, runs: Sequence[LaneRun], interrupted: Callable[[], bool]) -> None:
        """Train the rest of each run's interval; stops early if all are found to diverge."""
        shared = self._join_streams(runs)
        left = {run.lane: self._length(run) - run.step for run in runs}
        longest = max(left.values())
        rates, momenta, zeros = self._traces(runs, longest)
        look = max(1, longest // LOOKS)
        with self._waiting() as wait:
            for step in range(longest):
                if interrupted():
                    raise Interrupted
                for run in runs:
                    if left[run.lane] == step:
                        wait(run)
                moving = [run for run in runs if left[run.lane] > step]
                batches = self._drawn(moving, shared=shared)
                played = None if momenta is None else momenta[step]
                self._losses += self.learner.step(
                    batches, rates[step], played, shared=shared, zeros=zeros
                )
                for run in moving:
                    run.step, run.position = run.step + 1, run.stream.now
                if (step + 1) % look == 0 and not self._any_finite(moving):
                    return

    def _join_streams(self, runs: Sequence[LaneRun]) -> bool:
        """Let runs at the same place draw their batches together; whether all are at the same."""
        streams: dict[tuple[object, ...], Stream] = {}
        for run in runs:
            if run.step == 0:
                run.stream.begin(run.epoch + 1)
                run.position = run.stream.now
            run.stream = streams.setdefault(run.place, run.stream)
        return len(streams) == 1

    @contextmanager
    def _waiting(self) -> Iterator[Callable[[LaneRun], None]]:
        """A function to call for a run that is to stay as it is until the end of the block."""
        copies: list[tuple[LaneRun, Lane, torch.Tensor]] = []

        def wait(run: LaneRun) -> None:
            copies.append((run, self.learner.copy(run.lane), self._losses[run.lane].clone()))

        try:
            yield wait
        finally:
            for run, copy, loss in copies:
                self.learner.restore(run.lane, copy)
                self._losses[run.lane] = loss

    def _any_finite(self, runs: Sequence[LaneRun]) -> bool:
        """Whether the losses of any of the runs are still finite; waits for the device."""
        losses = self._losses.tolist()
        return any(math.isfinite(losses[run.lane]) for run in runs)

    def _drawn(self, moving: Sequence[LaneRun], *, shared: bool) -> list[Any]:
        """The batches of the next step: one per lane, or one for all."""
        first = moving[0].stream
        if shared:
            return first.draw()
        of_lane = [first] * self.size  # also where nobody sits, or waits
        for run in moving:
            of_lane[run.lane] = run.stream
        return drawn_by(of_lane)

    def _traces(
        self, runs: Sequence[LaneRun], steps: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
        """Rates and momenta of the next steps, (steps, K, groups); rates are 0 in other lanes.

        Momenta are NaN where a trace has none; None if none has. Also whether any of them is 0.
        """
        shape = (steps, self.size, len(self._facts.ratios))
        rates, momenta = np.zeros(shape), np.full(shape, np.nan)
        for run in runs:
            first = self._ends[run.epoch] + run.step
            part = slice(first, min(first + steps, self._ends[-1]))
            count = part.stop - part.start
            rates[:count, run.lane] = run.trace.rates[:, part].T
            if run.trace.momenta is not None:
                momenta[:count, run.lane] = run.trace.momenta[:, part].T
        played = None if np.isnan(momenta).all() else torch.from_numpy(momenta).to(self._device)
        return torch.from_numpy(rates).to(self._device), played, bool((momenta == 0).any())

    def _validated(
        self, runs: Sequence[LaneRun], interrupted: Callable[[], bool]
    ) -> list[dict[str, float] | TaskError]:
        """The metrics of each run, or why it has none."""
        data = self._data.validation

        def batches() -> Iterator[Any]:
            for batch in data.in_order():
                if interrupted():
                    raise Interrupted
                yield batch

        if self.learner.validates_together:
            with task_code("validating in lanes"):
                found = self.learner.validate(batches(), data.samples)
            return [found[run.lane] for run in runs]
        results: list[dict[str, float] | TaskError] = []
        for run in runs:
            self.learner.take(run.lane, self._single)
            try:
                with task_code(f"validating {self._facts.interval} {run.epoch + 1}"):
                    results.append(self._single.validate(batches(), data.samples))
            except TaskError as error:
                results.append(error)
        return results

    def test(self, run: LaneRun) -> dict[str, float]:
        """See :meth:`LaneRun.test`."""
        with task_code("testing"):
            data = self._data.test
            self.learner.take(run.lane, self._single)
            return self._single.validate(data.in_order(), data.samples)

    def state(self, run: LaneRun) -> dict[str, Any]:
        """See :meth:`LaneRun.state`."""
        self.learner.take(run.lane, self._single)
        place, random = run.position
        random = random or run.stream.seeded(run.epoch + 1)
        return {
            "epoch": run.epoch,
            "step": run.step,
            "loss": self._losses[run.lane].clone(),
            "seconds": run.seconds,
            "random": plain_state(random, self._device) if run.step else None,
            "place": place,
            **self._single.state(),
        }

    def restore(self, run: LaneRun, state: Mapping[str, Any]) -> None:
        """See :meth:`LaneRun.restore`."""
        self._single.restore(state)
        self.learner.put(run.lane, self._single)
        run.epoch = counted(state["epoch"], len(self._ends) - 2)
        run.step = counted(state["step"], self._length(run))
        place = state.get("place", (run.epoch, run.step))  # earlier versions knew epochs only
        random = state["random"] and generators_in(state["random"], self._device)
        run.stream.go_to((tuple(place), random))
        run.position = run.stream.now
        run.seconds = float(state["seconds"])
        self._losses[run.lane] = state["loss"]
