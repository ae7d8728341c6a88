"""Renders Schedule-Free as a standalone Python file, and verifies it by executing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clrsearch.errors import ScheduleError
from clrsearch.schedules.code import TOLERANCE, SourceFile, execute, opening, preamble
from clrsearch.schedules.schedule import Trace
from clrsearch.schedules.schedule_free import TWINS, ScheduleFree, schedulefree_package

BY_EPOCHS = (
    "for epoch in range(EPOCHS):",
    "    model.train()",
    "    optimizer.train()",
    "    for inputs, targets in loader:",
    "        ...",
    "        optimizer.step()",
    "    optimizer.eval()  # to the averaged weights, which are validated and saved",
    "    torch.optim.swa_utils.update_bn(loader, model)  # only if the model has batch norm",
    "    model.eval()",
    "    ...",
)
BY_STEPS = (
    "model.train()",
    "optimizer.train()  # again after each validation",
    "for step in range(TOTAL_STEPS):",
    "    ...",
    "    optimizer.step()",
    "optimizer.eval()  # to the averaged weights, which are validated and saved",
    "torch.optim.swa_utils.update_bn(loader, model)  # only if the model has batch norm",
    "model.eval()",
)


def render_optimizer(schedule: ScheduleFree, file: SourceFile) -> str:
    """The text of a Python file with a function ``make_optimizer(optimizer, steps_per_epoch)``.

    The function returns the Schedule-Free optimizer in place of a fresh one. Its second argument is
    the file's own: ``total_steps`` for a length in steps.
    """
    torchs = _name(file)
    body = [*_groups(schedule, torchs, several=len(file.multipliers) > 1)]
    warmup = f", warmup_steps=round({schedule.warmup!r} * stretch) + 1" if schedule.warmup else ""
    beta = "" if _adapts(torchs) else f", momentum={schedule.beta!r}"
    body.append(f"return {TWINS[torchs]}(groups{beta}{warmup})")
    length, usage = (
        ("len(loader)", BY_EPOCHS) if file.total_steps is None else ("TOTAL_STEPS", BY_STEPS)
    )
    lines = [
        *opening(file, [f"from schedulefree import {TWINS[torchs]}"]),
        "",
        "",
        f"def make_optimizer(optimizer, {file.argument}):",
        f'    """Schedule-Free in place of a fresh {torchs}; it needs no scheduler.',
        "",
        f"    Found with {file.optimizer}.",
        "",
        f"        optimizer = make_optimizer(optimizer, {length})",
        *(f"        {line}" for line in usage),
        '    """',
        *(f"    {line}" for line in [*preamble(file, body), *body]),
        "",
    ]
    return "\n".join(lines)


def _name(file: SourceFile) -> str:
    return file.optimizer.partition("(")[0]


def _adapts(name: str) -> bool:
    return name != "SGD"


def _groups(schedule: ScheduleFree, name: str, *, several: bool) -> list[str]:
    """The source of the groups of the new optimizer."""
    rate = f"{schedule.lr!r} * ratio" if several else repr(schedule.lr)
    kept = ["params", "weight_decay", *(["eps"] if _adapts(name) else [])]
    values = {key: f'group["{key}"]' for key in kept} | {"lr": rate}
    if _adapts(name):
        values["betas"] = f'({schedule.beta!r}, group["betas"][1])'
    each = "group, ratio in zip(optimizer.param_groups, ratios)"
    return [
        "groups = [",
        "    {",
        *(f'        "{key}": {value},' for key, value in values.items()),
        "    }",
        f"    for {each if several else 'group in optimizer.param_groups'}",
        "]",
    ]


def check_optimizer(
    source: str,
    expected: Trace,
    *,
    file: SourceFile,
    ratios: Sequence[float] = (1.0,),
) -> None:
    """Execute a file from :func:`render_optimizer` and step its optimizer along a trace.

    Raises:
        ScheduleError: a rate differs by more than 1e-12 of the peak rate, or beta does; or the
            package is not installed.
    """
    import torch

    schedulefree_package()
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1 * r} for r in ratios]
    fresh = getattr(torch.optim, _name(file))(groups)
    twin: Any = execute(source, name="make_optimizer")(fresh, file.argument_found)
    tolerance = TOLERANCE * float(np.max(expected.rates))
    twin.train()
    for step in range(expected.rates.shape[1]):
        twin.step()
        for group, rates in zip(twin.param_groups, expected.rates, strict=True):
            beta = group["betas"][0] if "betas" in group else group["momentum"]
            gap = max(abs(group["scheduled_lr"] - rates[step]), abs(beta - expected.averaging))
            if not gap <= tolerance:
                raise ScheduleError(
                    f"the code deviates from the schedule at step {step} by {gap:.3g}"
                )
