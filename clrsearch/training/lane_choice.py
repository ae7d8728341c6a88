"""Whether a task can be trained in lanes, and in how many: both are tried out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, Unpack

import torch

from clrsearch.errors import PlanError
from clrsearch.tasks import Loop, Task, TaskFacts
from clrsearch.training.contract import batch_loss
from clrsearch.training.device import free_memory
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.lane_optimizers import RULES
from clrsearch.training.lanes import Lanes
from clrsearch.training.learner import Learner
from clrsearch.training.precision import Precision
from clrsearch.training.seeding import Generators, derive, seed_everything
from clrsearch.training.stream import Stream, drawn_by
from clrsearch.training.task_data import TaskData

Wanted = Literal["auto"] | int

MOST: Mapping[str, int] = {"cpu": 16, "cuda": 64}
"""The most lanes that are chosen, and the kinds of devices that have any."""
ROUNDS = 6  # at least so many rounds of trials, as those of a round cannot learn from each other
MEMORY = 0.6  # share of the free memory
GAIN = 1.2  # times as fast as one trial at a time, at least
SIMILAR = 0.9  # times as fast as more lanes, to be preferred to them
HOPE = 3.0  # times as fast as without, at best, if compiled
LONG = 30.0  # seconds of training, from which on compiling is tried
TIMED = 0.2  # seconds of training that are measured
VALUES = "data-dependent control flow"  # in torch's words
TOLERANCE: Mapping[Precision, float] = {"float32": 1e-3, "bf16": 0.1}
"""Relative difference between gradients in a lane and alone that rounding may explain."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to take steps."""

    name: str
    compiled: bool = False
    captured: bool = False


class Training(TypedDict, total=False):
    """How a study's task is trained; results of a ``deterministic`` study must repeat exactly."""

    device: Required[torch.device]
    precision: Required[Precision]
    seed: Required[int]
    deterministic: bool


PLAIN = Way("")
WAYS = (
    PLAIN,
    Way(" in a CUDA graph", captured=True),
    Way(", compiled", compiled=True),
    Way(", compiled, in a CUDA graph", compiled=True, captured=True),
)
STEPS = 5  # for which they are compared; a graph is captured at the fourth


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Lanes to train in, None to train one run at a time, and why, in one line."""

    lanes: Lanes | None
    reason: str


def choose_lanes(
    task: Task | Loop,
    facts: TaskFacts,
    data: TaskData | None,
    wanted: Wanted,
    *,
    trials: int,
    **how: Unpack[Training],
) -> Choice:
    """Lanes for a task, of whose study so many ``trials`` are left.

    ``auto`` chooses as many as pay, given their speed, the free memory, and that trials learn from
    earlier ones; None if one trial at a time is as fast, or if the task is not fit for lanes.

    Raises:
        PlanError: a number is wanted, and the task is not fit for lanes.
    """
    try:
        if wanted != "auto":
            with _refused(wanted):
                return _tried(task, facts, data, **how).fixed(wanted, trials)
        with _unfit_if_it_fails():
            return _tried(task, facts, data, **how).best(trials)
    except _Unfit as reason:
        return Choice(lanes=None, reason=f"one trial at a time, as {reason}")
    finally:
        free_memory(how["device"])


def require_lanes(
    task: Task | Loop,
    facts: TaskFacts,
    data: TaskData | None,
    wanted: int,
    **how: Unpack[Training],
) -> None:
    """Refuse a number of lanes for a task that is not fit for any.

    Raises:
        PlanError: with the reason.
    """
    with _refused(wanted):
        _tried(task, facts, data, **how)


@contextmanager
def _refused(wanted: int) -> Iterator[None]:
    """Refuse the lanes that are wanted if the block fails."""
    try:
        with _unfit_if_it_fails():
            yield
    except _Unfit as reason:
        raise PlanError(
            f"--lanes {wanted}: this task cannot be trained in lanes, as {reason}; leave --lanes "
            "out to train one trial at a time"
        ) from reason


def _tried(
    task: Task | Loop, facts: TaskFacts, data: TaskData | None, **how: Unpack[Training]
) -> _Probe:
    """A task that has been tried out in lanes."""
    if isinstance(task, Loop) or data is None:
        raise _Unfit("it has a training loop of its own")
    if how.get("deterministic"):
        raise _Unfit("the study is deterministic, and rounding in a lane depends on the others")
    return _Probe(task, facts, data, how["device"], how["precision"], how["seed"])


class _Unfit(Exception):
    """The task is not fit for lanes; the message completes "as ..."."""


@contextmanager
def _unfit_if_it_fails() -> Iterator[None]:
    """Take any error of the block for a reason to do without lanes."""
    try:
        yield
    except (_Unfit, torch.AcceleratorError):
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _Unfit("there is not enough memory") from error
    except Exception as error:
        said = str(error.__cause__ or error).partition("\n")[0].partition(". ")[0]
        if VALUES in said:
            raise _Unfit(
                "its code has data-dependent control flow, such as item() or if loss > 3"
            ) from error
        raise _Unfit(f"torch cannot vectorize it ({said})") from error


def _require_fit(task: Task, data: TaskData, device: torch.device, precision: Precision) -> None:
    """Name what keeps a task from being trained in lanes, as far as it can be seen beforehand."""
    if device.type not in MOST:
        raise _Unfit("lanes need a CUDA GPU or a CPU")
    if precision not in TOLERANCE:
        raise _Unfit(f"{precision} scales the loss of each; bf16 does not")
    if data.train.apart(1) is None:
        raise _Unfit("loaders() gives its batches in one order at a time; data() does not")
    if task.overrides("after_step"):
        raise _Unfit("after_step() works on one model at a time")


class _Probe:
    """A task that is tried out in lanes.

    Raises:
        _Unfit: it is not fit for them.
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
        _require_fit(task, data, device, precision)
        self._task, self._facts, self._data = task, facts, data
        self._device, self._precision = device, precision
        self._seed = seed
        self._stream = self._new_stream(0, 1)
        self._together = True
        seed_everything(derive(seed, 0, "init"))
        self._alone = Learner(task, device, precision)
        self._require_optimizer()
        self._compare()

    def fixed(self, size: int, trials: int) -> Choice:
        """So many lanes."""
        alone, learner = self._time_alone(), self._learner(size)
        return self._chosen(learner, size * alone / self._time(learner), alone * trials)

    def best(self, trials: int) -> Choice:
        """As many lanes as pay."""
        most = min(MOST[self._device.type], trials // ROUNDS)
        if most < 2:
            raise _Unfit("too few trials are left for two at a time to learn from earlier ones")
        size = 1 << (min(most, self._room()).bit_length() - 1)
        if size < 2:
            raise _Unfit("there is no memory for two lanes")
        alone, gains = self._time_alone(), dict[int, float]()
        while size > 1 and (not gains or min(gains.values()) >= SIMILAR * max(gains.values())):
            gains[size] = size * alone / self._time(self._learner(size))
            size //= 2
        size = fewest(gains)
        if gains[size] * HOPE < GAIN:
            return _declined(size, gains[size])
        return self._chosen(self._learner(size), gains[size], alone * trials, least=GAIN)

    def _chosen(
        self, learner: LaneLearner, gain: float, step: float, *, least: float = 0
    ) -> Choice:
        """The lanes of a learner, compiled if that helps, if their gain is then large enough.

        ``step`` is the time for a step of all trials, one by one.
        """
        faster, how = self._sped_up(learner, compiles=step * self._facts.horizon > LONG)
        gain *= faster
        if gain < least:
            return _declined(learner.size, gain)
        lanes = Lanes(
            self._task,
            self._facts,
            self._data,
            learner,
            device=self._device,
            precision=self._precision,
        )
        return Choice(
            lanes=lanes,
            reason=f"{learner.size} trials train together{how}, at {gain:.1f} times the speed of "
            "one at a time",
        )

    def _sped_up(self, learner: LaneLearner, *, compiles: bool) -> tuple[float, str]:
        """Choose the fastest way to take a step; returns how much faster it is, and what it is."""
        captures = self._device.type == "cuda"
        ways = [
            way for way in WAYS if (compiles or not way.compiled) and (captures or not way.captured)
        ]
        if ways == [PLAIN]:
            return 1.0, ""
        times = {PLAIN: self._time(learner)}
        for way in ways[1:]:
            try:
                if self._steps_alike(learner, way):
                    times[way] = self._time(learner)
            except (torch.AcceleratorError, MemoryError):
                raise
            except Exception:  # of a compiler that is not there, or that fails at this model
                continue
        best = min(times, key=lambda way: times[way] * (SIMILAR if way == PLAIN else 1))
        learner.speed_up(compiled=best.compiled, captured=best.captured)
        return times[PLAIN] / times[best], best.name

    def _steps_alike(self, learner: LaneLearner, way: Way) -> bool:
        """Whether steps that are taken in this way come to what plain ones do."""
        before, found = learner.copy(0), []
        batch = self._stream.draw()
        rates = torch.tensor(
            [[self._facts.base_lr * ratio for ratio in self._facts.ratios]] * learner.size,
            dtype=torch.float64,
            device=self._device,
        )
        for each in (PLAIN, way):
            learner.speed_up(compiled=each.compiled, captured=each.captured)
            for lane in range(learner.size):
                learner.restore(lane, before)
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
            raise _Unfit(f"its optimizer is {type(optimizer).__name__}, and lanes have {known}")
        hooks = (
            *(optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks),
            *(each._backward_hooks for each in model.parameters()),
            *(each._post_accumulate_grad_hooks for each in model.parameters()),
        )
        if any(hooks):
            raise _Unfit("its optimizer or parameters have hooks, which see one model at a time")
        if any(each.is_complex() for each in model.parameters()):
            raise _Unfit("it has complex weights")
        own = {id(each) for each in model.parameters()}
        if any(id(each) not in own for group in optimizer.param_groups for each in group["params"]):
            raise _Unfit("its optimizer has weights that are not the model's")

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
                raise _Unfit(f"it replaces its buffer {name}, rather than writing into it")
        if self._random:  # such as dropout: compare without it
            alone.model.eval()
        named = dict(alone.model.named_parameters())
        self._unused = {name for name, each in named.items() if each.grad is None}
        learner = self._learner(2)
        loss, _ = self._loss(batch)
        losses, found = learner.gradients(batch, training=alone.model.training)
        wanted = {name: each.grad for name, each in named.items() if each.grad is not None}
        for lane in range(learner.size):
            if not self._same(losses[lane], loss) or not self._same(
                torch.cat([found[name][lane].flatten() for name in wanted]),
                torch.cat([each.flatten() for each in wanted.values()]),
            ):
                raise _Unfit("its gradients in lanes are not those of a model alone")
            for name, each in alone.model.named_buffers():
                if not self._same(found[name][lane].double(), each.double()):
                    raise _Unfit(f"its buffer {name} in lanes is not that of a model alone")
        alone.optimizer.zero_grad()
        self._together = not self._task.evaluates() and self._measures_alike(learner)

    def _same(self, found: torch.Tensor, wanted: torch.Tensor) -> bool:
        """Whether tensors are equal up to rounding."""
        return bool((found - wanted).norm() <= TOLERANCE[self._precision] * wanted.norm())

    def _loss(self, batch: Any) -> tuple[torch.Tensor, bool]:
        """The loss of a batch, differentiated, and whether random numbers were drawn for it."""
        self._alone.optimizer.zero_grad()
        before = Generators.now(self._device)
        loss = batch_loss(self._task, self._alone.model, batch, augment=False)
        loss.backward()  # type: ignore[no-untyped-call]
        after = Generators.now(self._device)
        if not before.same_on_host(after):
            raise _Unfit("it draws from Python's or NumPy's generators, which lanes would share")
        return loss.detach(), not before.same_in_torch(after)

    def _measures_alike(self, learner: LaneLearner) -> bool:
        """Whether a validation batch can be measured in all lanes at once."""
        batch = next(iter(self._data.validation.in_order()))
        before = Generators.now(self._device)
        wanted = self._alone.validate([batch])
        after = Generators.now(self._device)
        if not (before.same_in_torch(after) and before.same_on_host(after)):
            return False
        try:
            found = learner.validate([batch])[0]
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception:  # as of a metric that is computed by another library
            return False
        most = TOLERANCE[self._precision]
        return all(abs(found[name] - value) <= most * abs(value) for name, value in wanted.items())

    def _new_stream(self, seed_index: int, readers: int) -> Stream:
        """The batches of a run in its first epoch."""
        reader = self._data.train.apart(readers)
        assert reader is not None
        stream = Stream(self._task, reader, (self._seed, seed_index), self._device)
        stream.begin(1)
        return stream

    def _learner(self, size: int) -> LaneLearner:
        """A learner with the same model in all lanes."""
        learner = LaneLearner(
            self._task,
            size,
            self._device,
            self._precision,
            plays_momentum=self._facts.momentum != "none",
            unused=self._unused,
        )
        for lane in range(size):
            learner.put(lane, self._alone)
        learner.validates_together = self._together
        return learner

    def _room(self) -> int:
        """The number of lanes that there is memory for."""
        learner = self._learner(2)
        if self._device.type == "cpu":
            if "SC_AVPHYS_PAGES" not in os.sysconf_names:  # on a Mac
                return MOST["cpu"]
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            return int(MEMORY * free / learner.bytes_per_lane)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._stepper(learner)()
        if learner.validates_together:
            learner.validate([next(iter(self._data.validation.in_order()))])
        peak = torch.cuda.max_memory_allocated(self._device)
        per_lane = max((peak - before) / learner.size, learner.bytes_per_lane)
        free, _ = torch.cuda.mem_get_info(self._device)
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(
            self._device
        )
        return int(MEMORY * (free + cached) / per_lane)

    def _time_alone(self) -> float:
        """The seconds that a step of one run takes."""
        alone = self._alone
        alone.model.train()
        for group in alone.optimizer.param_groups:
            group["lr"] = 0.0
        return self._timed(lambda: alone.step(self._stream.draw()))

    def _time(self, learner: LaneLearner) -> float:
        """The seconds that a step of all lanes takes."""
        return self._timed(self._stepper(learner))

    def _stepper(self, learner: LaneLearner) -> Callable[[], object]:
        """Takes a step that changes no weights, on a batch per lane, as of different seeds."""
        streams = [self._new_stream(number, learner.size) for number in range(learner.size)]
        rates = torch.zeros(
            (learner.size, len(self._facts.ratios)), dtype=torch.float64, device=self._device
        )

        def step() -> None:
            learner.step(drawn_by(streams), rates, None, shared=False)

        return step

    def _timed(self, act: Callable[[], object]) -> float:
        """The mean duration of an action, in seconds, once it has been warmed up."""
        for _ in range(3):
            act()
        self._wait()
        began, times = time.perf_counter(), 0
        while times < 3 or time.perf_counter() - began < TIMED:
            act()
            self._wait()
            times += 1
        return (time.perf_counter() - began) / times

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _declined(size: int, gain: float) -> Choice:
    return Choice(
        lanes=None,
        reason=f"one trial at a time, as {size} together would train at {gain:.1f} times its speed",
    )


def fewest(speeds: Mapping[int, float]) -> int:
    """The smallest number whose speed is about that of the fastest."""
    return min(each for each in speeds if speeds[each] >= SIMILAR * max(speeds.values()))
