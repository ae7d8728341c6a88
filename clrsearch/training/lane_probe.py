"""Tries out whether a task can be trained in lanes, and how fast it is in them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from clrsearch.tasks import Task, TaskFacts
from clrsearch.training.contract import batch_loss
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.lane_optimizers import RULES
from clrsearch.training.learner import Learner
from clrsearch.training.precision import Precision
from clrsearch.training.seeding import Generators, derive, seed_everything
from clrsearch.training.stream import Stream, drawn_by
from clrsearch.training.task_data import TaskData

MOST: Mapping[str, int] = {"cpu": 16, "cuda": 64}
"""The most lanes that are chosen, and the kinds of devices that have any."""
MEMORY = 0.6  # share of the free memory
WARM_UP = 3  # steps, or fewer if they are slow
TIMED = 0.2  # seconds of training that are measured
STEPS = 5  # for which ways to take them are compared; a CUDA graph is captured at the fourth
CONTROL_FLOW = "data-dependent control flow"  # in torch's words
TOLERANCE: Mapping[Precision, float] = {"float32": 1e-3, "bf16": 0.1}
"""Relative difference between gradients in a lane and alone that rounding may explain."""


class Unfit(Exception):
    """The task is not fit for lanes; the message completes "as ..."."""


@contextmanager
def unfit_if_it_fails() -> Iterator[None]:
    """Take any error of the block for a reason to do without lanes."""
    try:
        yield
    except (Unfit, torch.AcceleratorError):
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise Unfit("there is not enough memory") from error
    except Exception as error:
        said = str(error.__cause__ or error).partition("\n")[0].partition(". ")[0]
        if CONTROL_FLOW in said:
            raise Unfit(
                "its code has data-dependent control flow, such as item() or if loss > 3"
            ) from error
        raise Unfit(f"torch cannot vectorize it ({said})") from error


def require_fit(task: Task, data: TaskData, device: torch.device, precision: Precision) -> None:
    """Name what keeps a task from being trained in lanes, as far as it can be seen beforehand."""
    if device.type not in MOST:
        raise Unfit("lanes need a CUDA GPU or a CPU")
    if precision not in TOLERANCE:
        raise Unfit(f"{precision} scales the loss of each; bf16 does not")
    if data.train.apart(1) is None:
        raise Unfit("loaders() gives its batches in one order at a time; data() does not")
    if task.overrides("after_step"):
        raise Unfit("after_step() works on one model at a time")


class LaneProbe:
    """A task that is tried out in lanes.

    Attributes:
        task: the task.
        facts: its facts.
        data: its data.
        device: where it is trained.
        precision: that of the forward pass.

    Raises:
        Unfit: it is not fit for lanes.
    """

    def __init__(
        self,
        task: Task,
        facts: TaskFacts,
        data: TaskData,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        require_fit(task, data, device, precision)
        self.task, self.facts, self.data = task, facts, data
        self.device, self.precision = device, precision
        self._seed = seed
        self._stream = self._new_stream(0, 1)
        self._together = True
        seed_everything(derive(seed, 0, "init"))
        self._alone = Learner(task, device, precision)
        self._require_optimizer()
        self._compare()

    def steps_alike(self, learner: LaneLearner, **way: bool) -> bool:
        """Whether steps that are sped up in this way come to what plain ones do.

        The learner takes them in this way from then on; its weights are as before.
        """
        before, found = learner.copy(0), []
        batch = self._stream.draw()
        own = [self.facts.base_lr * ratio for ratio in self.facts.ratios]
        rates = torch.tensor([own] * learner.size, dtype=torch.float64, device=self.device)
        for each in ({}, way):
            learner.speed_up(**each)
            for _ in range(STEPS):
                losses = learner.step(batch, rates, None, shared=True)
            found.append(losses)
            for lane in range(learner.size):
                learner.restore(lane, before)
        return self._random or self._same(*found)

    def _require_optimizer(self) -> None:
        optimizer, model = self._alone.optimizer, self._alone.model
        if type(optimizer) not in RULES:
            known = ", ".join(rule.__name__ for rule in RULES)
            raise Unfit(f"its optimizer is {type(optimizer).__name__}, and lanes have {known}")
        hooks = (
            *(optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks),
            *(each._backward_hooks for each in model.parameters()),
            *(each._post_accumulate_grad_hooks for each in model.parameters()),
        )
        if any(hooks):
            raise Unfit("its optimizer or parameters have hooks, which see one model at a time")
        if any(each.is_complex() for each in model.parameters()):
            raise Unfit("it has complex weights")
        own = {id(each) for each in model.parameters()}
        if any(id(each) not in own for group in optimizer.param_groups for each in group["params"]):
            raise Unfit("its optimizer has weights that are not the model's")

    def _compare(self) -> None:
        """Compare gradients, buffers and metrics in lanes with those of a model alone.

        The model alone is a call ahead, so that one which counts its calls is found out.
        """
        alone = self._alone
        batch = self._stream.draw()[0]
        alone.model.train()
        buffers = dict(alone.model.named_buffers())
        _, self._random = self._loss(batch)
        for name, each in alone.model.named_buffers():
            if each is not buffers[name]:
                raise Unfit(f"it replaces its buffer {name}, rather than writing into it")
        if self._random:  # such as dropout: compare without it
            alone.model.eval()
        named = dict(alone.model.named_parameters())
        self._unused = {name for name, each in named.items() if each.grad is None}
        learner = self.learner(2)
        loss, _ = self._loss(batch)
        losses, found = learner.gradients(batch, training=alone.model.training)
        wanted = {name: each.grad for name, each in named.items() if each.grad is not None}
        for lane in range(learner.size):
            if not self._same(losses[lane], loss) or not self._same(
                torch.cat([found[name][lane].flatten() for name in wanted]),
                torch.cat([each.flatten() for each in wanted.values()]),
            ):
                raise Unfit("its gradients in lanes are not those of a model alone")
            for name, each in alone.model.named_buffers():
                if not self._same(found[name][lane].double(), each.double()):
                    raise Unfit(f"its buffer {name} in lanes is not that of a model alone")
        alone.optimizer.zero_grad()
        self._together = not self.task.evaluates() and self._measures_alike(learner)

    def _same(self, found: torch.Tensor, wanted: torch.Tensor) -> bool:
        """Whether tensors are equal up to rounding."""
        return bool((found - wanted).norm() <= TOLERANCE[self.precision] * wanted.norm())

    def _loss(self, batch: Any) -> tuple[torch.Tensor, bool]:
        """The loss of a batch, differentiated, and whether random numbers were drawn for it."""
        self._alone.optimizer.zero_grad()
        before = Generators.now(self.device)
        loss = batch_loss(self.task, self._alone.model, batch, augment=False)
        loss.backward()  # type: ignore[no-untyped-call]
        after = Generators.now(self.device)
        if not before.same_on_host(after):
            raise Unfit("it draws from Python's or NumPy's generators, which lanes would share")
        return loss.detach(), not before.same_in_torch(after)

    def _measures_alike(self, learner: LaneLearner) -> bool:
        """Whether a validation batch can be measured in all lanes at once."""
        batch = next(iter(self.data.validation.in_order()))
        before = Generators.now(self.device)
        wanted = self._alone.validate([batch])
        after = Generators.now(self.device)
        if not (before.same_in_torch(after) and before.same_on_host(after)):
            return False
        try:
            found = learner.validate([batch])[0]
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:  # as of a metric that is computed by another library
            return False
        most = TOLERANCE[self.precision]
        return all(abs(found[name] - value) <= most * abs(value) for name, value in wanted.items())

    def _new_stream(self, seed_index: int, readers: int) -> Stream:
        """The batches of a run in its first epoch."""
        reader = self.data.train.apart(readers)
        assert reader is not None
        stream = Stream(self.task, reader, (self._seed, seed_index), self.device)
        stream.begin(1)
        return stream

    def learner(self, size: int) -> LaneLearner:
        """A learner with the same model in all lanes."""
        learner = LaneLearner(
            self.task,
            size,
            self.device,
            self.precision,
            plays_momentum=self.facts.momentum != "none",
            unused=self._unused,
        )
        for lane in range(size):
            learner.put(lane, self._alone)
        learner.validates_together = self._together
        return learner

    def room(self) -> int:
        """The number of lanes that there is memory for."""
        learner = self.learner(2)
        if self.device.type == "cpu":
            if "SC_AVPHYS_PAGES" not in os.sysconf_names:  # on a Mac
                return MOST["cpu"]
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            return int(MEMORY * free / learner.bytes_per_lane)
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self._stepper(learner)()
        if learner.validates_together:
            learner.validate([next(iter(self.data.validation.in_order()))])
        peak = torch.cuda.max_memory_allocated(self.device)
        per_lane = max((peak - before) / learner.size, learner.bytes_per_lane)
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(MEMORY * (free + cached) / per_lane)

    def time_alone(self) -> float:
        """The seconds that a step of one run takes."""
        alone = self._alone
        alone.model.train()
        for group in alone.optimizer.param_groups:
            group["lr"] = 0.0
        return self._timed(lambda: alone.step(self._stream.draw()))

    def time(self, learner: LaneLearner) -> float:
        """The seconds that a step of all lanes takes."""
        return self._timed(self._stepper(learner))

    def _stepper(self, learner: LaneLearner) -> Callable[[], object]:
        """Takes a step that changes no weights, on a batch per lane, as of different seeds."""
        streams = [self._new_stream(number, learner.size) for number in range(learner.size)]
        rates = torch.zeros(
            (learner.size, len(self.facts.ratios)), dtype=torch.float64, device=self.device
        )

        def step() -> None:
            learner.step(drawn_by(streams), rates, None, shared=False)

        return step

    def _timed(self, act: Callable[[], object]) -> float:
        """The mean duration of an action, in seconds, once it has been warmed up."""
        self._repeated(act, WARM_UP)
        seconds, times = self._repeated(act, None)
        return seconds / times

    def _repeated(self, act: Callable[[], object], most: int | None) -> tuple[float, int]:
        """Act for a while, but not so often; returns the seconds that it took, and how often."""
        began, times = time.perf_counter(), 0
        while (seconds := time.perf_counter() - began) < TIMED or not times:
            if times == most:
                break
            act()
            self._wait()
            times += 1
        return seconds, times

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
