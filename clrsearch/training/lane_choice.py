"""Whether a task is trained in lanes, in how many, and in which way: what has proved fastest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Required, TypedDict, Unpack

import torch

from clrsearch.errors import PlanError
from clrsearch.tasks import Loop, Task, TaskFacts
from clrsearch.training.device import free_memory
from clrsearch.training.lane_learner import LaneLearner
from clrsearch.training.lane_probe import MOST, LaneProbe, Unfit, unfit_if_it_fails
from clrsearch.training.lanes import Lanes
from clrsearch.training.precision import Precision
from clrsearch.training.task_data import TaskData

Wanted = Literal["auto"] | int

ROUNDS = 6  # at least so many rounds of trials, as those of a round cannot learn from each other
GAIN = 1.2  # times as fast as one trial at a time, at least
SIMILAR = 0.9  # times as fast as more lanes, to be preferred to them
HOPE = 3.0  # times as fast as without, at best, if compiled
LONG = 30.0  # seconds of training, from which on compiling is tried


@dataclass(frozen=True, slots=True)
class Way:
    """A way to take steps."""

    name: str
    compiled: bool = False
    captured: bool = False


class Training(TypedDict, total=False):
    """How a study's task is trained; results of a ``deterministic`` study must repeat exactly.

    ``averages`` says that Schedule-Free may take the place of the task's optimizer.
    """

    device: Required[torch.device]
    precision: Required[Precision]
    seed: Required[int]
    deterministic: bool
    averages: bool


PLAIN = Way("")
WAYS = (
    PLAIN,
    Way(" in a CUDA graph", captured=True),
    Way(", compiled", compiled=True),
    Way(", compiled, in a CUDA graph", compiled=True, captured=True),
)


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
                return _fixed(_tried(task, facts, data, **how), wanted, trials)
        with unfit_if_it_fails():
            return _best(_tried(task, facts, data, **how), trials)
    except Unfit as reason:
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
        with unfit_if_it_fails():
            yield
    except Unfit as reason:
        raise PlanError(
            f"--lanes {wanted}: this task cannot be trained in lanes, as {reason}; leave --lanes "
            "out to train one trial at a time"
        ) from reason


def _tried(
    task: Task | Loop, facts: TaskFacts, data: TaskData | None, **how: Unpack[Training]
) -> LaneProbe:
    """A task that has been tried out in lanes."""
    if isinstance(task, Loop) or data is None:
        raise Unfit("it has a training loop of its own")
    if how.get("deterministic"):
        raise Unfit("the study is deterministic, and rounding in a lane depends on the others")
    if how.get("averages"):
        raise Unfit("schedule_free trains with an optimizer that lanes do not have")
    return LaneProbe(task, facts, data, how["device"], how["precision"], how["seed"])


def _fixed(probe: LaneProbe, size: int, trials: int) -> Choice:
    """So many lanes."""
    alone, learner = probe.time_alone(), probe.learner(size)
    return _chosen(probe, learner, size * alone / probe.time(learner), alone * trials)


def _best(probe: LaneProbe, trials: int) -> Choice:
    """As many lanes as pay."""
    most = min(MOST[probe.device.type], trials // ROUNDS)
    if most < 2:
        raise Unfit("too few trials are left for two at a time to learn from earlier ones")
    most = min(most, probe.room())
    if most < 2:
        raise Unfit("there is no memory for two lanes")
    alone, gains = probe.time_alone(), dict[int, float]()
    size = 2
    while size <= most and gains.get(size // 4, 0) < SIMILAR * gains.get(size // 2, 1):
        gains[size] = size * alone / probe.time(probe.learner(size))
        size *= 2
    size = fewest(gains)
    if gains[size] * HOPE < GAIN:
        return _declined(size, gains[size])
    return _chosen(probe, probe.learner(size), gains[size], alone * trials, least=GAIN)


def _chosen(
    probe: LaneProbe, learner: LaneLearner, gain: float, step: float, *, least: float = 0
) -> Choice:
    """The lanes of a learner, sped up if that helps, if their gain is then large enough.

    ``step`` is the time for a step of all trials, one by one.
    """
    faster, how = _sped_up(probe, learner, compiles=step * probe.facts.horizon > LONG)
    gain *= faster
    if gain < least:
        return _declined(learner.size, gain)
    lanes = Lanes(
        probe.task,
        probe.facts,
        probe.data,
        learner,
        device=probe.device,
        precision=probe.precision,
    )
    return Choice(
        lanes=lanes,
        reason=f"{learner.size} trials train together{how}, at {gain:.1f} times the speed of one "
        "at a time",
    )


def _sped_up(probe: LaneProbe, learner: LaneLearner, *, compiles: bool) -> tuple[float, str]:
    """Choose the fastest way to take a step; returns how much faster it is, and what it is."""
    captures = probe.device.type == "cuda"
    ways = [
        way for way in WAYS if (compiles or not way.compiled) and (captures or not way.captured)
    ]
    if ways == [PLAIN]:
        return 1.0, ""
    times = {PLAIN: probe.time(learner)}
    for way in ways[1:]:
        try:
            if probe.steps_alike(learner, compiled=way.compiled, captured=way.captured):
                times[way] = probe.time(learner)
        except (torch.AcceleratorError, MemoryError):
            raise
        except Exception:  # of a compiler that is not there, or that fails at this model
            continue
    best = min(times, key=lambda way: times[way] * (SIMILAR if way == PLAIN else 1))
    learner.speed_up(compiled=best.compiled, captured=best.captured)
    return times[PLAIN] / times[best], best.name


def _declined(size: int, gain: float) -> Choice:
    return Choice(
        lanes=None,
        reason=f"one trial at a time, as {size} together would train at {gain:.1f} times its speed",
    )


def fewest(speeds: Mapping[int, float]) -> int:
    """The smallest number whose speed is about that of the fastest."""
    return min(each for each in speeds if speeds[each] >= SIMILAR * max(speeds.values()))
