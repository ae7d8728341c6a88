"""For timm: the arguments of its scheduler, stepped after every update of the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clrsearch.exports.found import Found
from clrsearch.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Linear,
    MultiStep,
    Polynomial,
    Schedule,
    Step,
    WarmupStableDecay,
    assignment,
    factory,
    opening,
)

USAGE = (
    "for update, batch in enumerate(batches, start=1):",
    "    ...",
    "    optimizer.step()",
    "    scheduler.step_update(update)",
)
FLAGS = {
    "sched": "--sched",
    "num_epochs": "--epochs",
    "warmup_epochs": "--warmup-epochs",
    "warmup_lr": "--warmup-lr",
    "min_lr": "--min-lr",
    "decay_rate": "--decay-rate",
    "decay_epochs": "--decay-epochs",
    "decay_fn": "--lr-decay-fn",
    "cycle_limit": "--lr-cycle-limit",
    "cycle_mul": "--lr-cycle-mul",
    "cycle_decay": "--lr-cycle-decay",
}
"""The options of timm's train.py, by the arguments of ``create_scheduler_v2``."""
WHOLE_EPOCHS = (
    "num_epochs",
    "warmup_epochs",
)  # train.py takes these in whole epochs, others in fractions


@dataclass(frozen=True, slots=True)
class Length:
    """A number of updates in the search; ``up`` rounds it up when it is stretched."""

    updates: int
    up: bool = False


@dataclass(frozen=True, slots=True)
class PerUpdate:
    """A factor applied to the rate at every update."""

    gamma: float


def write(found: Found) -> str:
    """A file with ``make_scheduler(optimizer, steps_per_epoch)`` for ``scheduler.step_update``.

    For a length in steps it is ``make_scheduler(optimizer, total_steps)``. It also names the
    options of timm's train.py, if lengths in epochs can express the schedule. Parameter groups keep
    the ratios of their rates.

    Raises:
        PlanError: timm has no such schedule, or only one with another warm-up or floor.
    """
    schedule, file = found.schedule, found.file
    arguments = _arguments(schedule, found.horizon)
    if arguments is None:
        raise found.cannot("timm", "timm has no equivalent")
    warmup = getattr(schedule, "warmup", 0)
    lengths = [warmup, getattr(schedule, "decay", 0)]
    if any(length != int(length) for length in lengths):
        raise found.cannot("timm", "its phases are not whole numbers of updates")
    lr = float(schedule.lr)  # type: ignore[attr-defined]  # every schedule with arguments has one
    if warmup:
        low = {"warmup_lr": lr / (warmup + 1), "warmup_epochs": Length(int(warmup))}
        arguments = {**arguments, **low, "warmup_prefix": True}
    if not found.one_rate and (warmup or arguments.get("min_lr")):
        raise found.cannot("timm", "it has a single minimum rate for all parameter groups")
    call = [
        "scheduler, _ = create_scheduler_v2(",
        "    optimizer,",
        *(f"    {name}={_source(value)}," for name, value in arguments.items()),
        "    step_on_epochs=False,",
        "    updates_per_epoch=1,  # so that the lengths above are in updates",
        ")",
        "return scheduler",
    ]
    body = [*assignment(lr, len(file.multipliers)), *call]
    by_epochs = found.one_rate and file.total_steps is None
    options = _options(arguments, lr, found) if by_epochs else None
    maths = ("import math", "") if any("math." in line for line in call) else ()
    lines = [
        *opening(file, [*maths, "from timm.scheduler import create_scheduler_v2"]),
        "",
        "",
        *factory(file, USAGE, body, note=("", f"For train.py: {options}") if options else ()),
        "",
    ]
    return "\n".join(lines)


def _arguments(schedule: Schedule, horizon: int) -> Mapping[str, Any] | None:
    """The arguments of ``create_scheduler_v2`` for a schedule without its warm-up, or None."""
    match schedule:
        case Constant():
            return {"sched": "constant", "num_epochs": Length(horizon)}
        case Linear() | Polynomial():
            power = schedule.power if isinstance(schedule, Polynomial) else 1.0
            return {"sched": "poly", **_filling(schedule), "decay_rate": power, "min_lr": 0.0}
        case Cosine():
            return {"sched": "cosine", **_filling(schedule), "min_lr": schedule.eta_min}
        case CosineRestarts() if _restarts_in_time(schedule):
            return {
                "sched": "cosine",
                "num_epochs": Length(int(schedule.restarts[1] - schedule.warmup)),
                "min_lr": schedule.eta_min,
                "cycle_limit": schedule.cycles,
                "cycle_mul": float(schedule.T_mult),
                "cycle_decay": 1.0,
            }
        case WarmupStableDecay(power=None):
            falling = {"decay_epochs": Length(int(schedule.decay)), "decay_fn": schedule.shape}
            return {
                "sched": "wsd",
                **_filling(schedule),
                "min_lr": schedule.min_lr,
                **falling,
            }
        case Step():
            return {
                "sched": "step",
                "num_epochs": Length(horizon - int(schedule.warmup)),
                "decay_epochs": Length(schedule.step_size, up=True),
                "decay_rate": schedule.gamma,
            }
        case Exponential():
            return {
                "sched": "step",
                "num_epochs": Length(horizon - int(schedule.warmup)),
                "decay_epochs": 1,
                "decay_rate": PerUpdate(schedule.gamma),
            }
        case MultiStep():
            # timm's milestones take effect an update early, and count from the end of the warm-up
            drops = [
                Length(int(each - schedule.warmup) + 1, up=True) for each in schedule.milestones
            ]
            return {
                "sched": "multistep",
                "num_epochs": Length(horizon - int(schedule.warmup)),
                "decay_milestones": drops,
                "decay_rate": schedule.gamma,
            }
    return None


def _filling(schedule: Linear | Polynomial | Cosine | WarmupStableDecay) -> dict[str, Length]:
    return {"num_epochs": Length(int(schedule.horizon - schedule.warmup))}


def _restarts_in_time(schedule: CosineRestarts) -> bool:
    """Whether the restarts are at whole steps, and timm's rounding shifts none of them."""
    if any(step != int(step) for step in schedule.restarts):
        return False
    growth = schedule.T_mult
    return growth == 1 or all(
        math.floor(math.log(growth**cycle, growth)) == cycle for cycle in range(schedule.cycles)
    )


def _source(value: object) -> str:
    if isinstance(value, Length):
        return f"{'math.ceil' if value.up else 'round'}({value.updates} * stretch)"
    if isinstance(value, PerUpdate):
        return f"{value.gamma!r} ** (1 / stretch)"
    if isinstance(value, list):
        return f"[{', '.join(_source(each) for each in value)}]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _options(arguments: Mapping[str, Any], lr: float, found: Found) -> str | None:
    """The equivalent options of train.py, with lengths in epochs; None if there are none."""
    steps = found.file.steps_per_epoch
    words = ["--sched-on-updates", f"--lr {lr!r}"]
    for name, value in {"warmup_epochs": Length(0), **arguments}.items():
        if name == "warmup_prefix":
            words.append("--warmup-prefix")
        elif name not in FLAGS or isinstance(value, PerUpdate):
            return None
        elif isinstance(value, Length):
            epochs = value.updates / steps
            if (name in WHOLE_EPOCHS and epochs != int(epochs)) or epochs * steps != value.updates:
                return None
            words.append(f"{FLAGS[name]} {int(epochs) if name in WHOLE_EPOCHS else epochs}")
        else:
            words.append(f"{FLAGS[name]} {value}")
    return " ".join([*words, "--cooldown-epochs 0"])
