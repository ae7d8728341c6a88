"""The run that wraps a custom training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from clrsearch.errors import TaskError
from clrsearch.tasks import Loop, as_script, task_code
from clrsearch.training.custom_loop import Course, LoopState, OwnRun, StopRun
from clrsearch.training.group import Group
from clrsearch.training.run import Epoch, counted, restoring
from clrsearch.training.seeding import derive, seed_everything


class LoopRun:
    """A run of a custom training loop from (``seed``, ``seed_index``); see :class:`Run`.

    ``tests`` says whether to measure the test split, as in a confirmation; ``prepared`` keeps what
    the loop builds once per process.
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
        prepared: dict[Any, Any] | None = None,
        group: Group | None = None,
    ) -> None:
        self.epoch = 0
        self.seconds = 0.0
        self._loop = loop
        self._on_epoch: Callable[[Epoch], bool] = lambda epoch: True
        self._since = time.perf_counter()
        self._intervals = course.intervals
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
            prepared={} if prepared is None else prepared,
            group=group,
        )
        seed_everything(derive(seed, seed_index, "init"))

    def train(self, on_epoch: Callable[[Epoch], bool]) -> None:
        """See :meth:`Run.train`."""
        state = self._state
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
        total = len(state.ends)
        if not state.stopped and state.done < total:
            what = "epochs" if self._own.validate_every is None else "intervals"
            raise TaskError(f"{self._loop.name} returned after {state.done} of {total} {what}")

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
        return {
            "epoch": state.done,
            "step": state.step,
            "seconds": self.seconds,
            "objects": states,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Run.restore`; the objects are restored in :meth:`OwnRun.epochs`."""
        with restoring():
            self._state.saved = dict(state["objects"])
            self._state.done = self.epoch = counted(state["epoch"], self._intervals)
            self._state.step = state.get("step")
            self.seconds = float(state["seconds"])
