"""Schedules of every family to be exported, and what is done with an export in every test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from contracts.test_families import EPOCHS, HORIZON, MOMENTUM, SCHEDULES, STEPS_PER_EPOCH
from torch import nn

from clrsearch.exports import Found
from clrsearch.schedules import Cyclic, Momentum, OneCycle, Schedule, SourceFile

__all__ = ["EPOCHS", "HORIZON", "SCHEDULES", "STEPS_PER_EPOCH"]

BY_STEPS = [each for each in SCHEDULES if each.family != "manual"]
"""Those that a study in steps can find: hand-written rates are for epochs."""
FORMULAS = [each for each in SCHEDULES if each.curves(HORIZON) is not None]
CYCLIC = Cyclic(
    base_lr=0.01,
    max_lr=0.3,
    step_size_up=14.7,
    mode="triangular2",
    **MOMENTUM,
)
ONE_CYCLE = OneCycle(
    max_lr=0.3,
    horizon=HORIZON,
    pct_start=0.3,
    div_factor=25.0,
    final_div_factor=1e4,
    **MOMENTUM,
)


def found(
    schedule: Schedule, ratios: tuple[float, ...] = (1.0,), momentum: Momentum = "momentum"
) -> Found:
    """A schedule as if a study had found it, for parameter groups with rates of these ratios."""
    return Found(
        schedule=schedule,
        file=SourceFile(
            title="A test.",
            found={"study": "none"},
            optimizer="SGD(momentum=0.9)",
            epochs=EPOCHS,
            steps_per_epoch=STEPS_PER_EPOCH,
            multipliers=(1.0,) * len(ratios),
        ),
        momentum=momentum,
        groups=tuple(f"group{index}" for index in range(len(ratios))),
        own_ratios=ratios,
    )


def in_steps(
    schedule: Schedule, ratios: tuple[float, ...] = (1.0,), momentum: Momentum = "momentum"
) -> Found:
    """The same, found in a study of 84 steps that were validated every 20."""
    exported = found(schedule, ratios, momentum)
    file = replace(exported.file, epochs=5, steps_per_epoch=16.8, total_steps=HORIZON)
    return replace(exported, file=file)


def executed(text: str) -> dict[str, Any]:
    """The names that a file of source code defines."""
    names: dict[str, Any] = {"__name__": "schedule"}
    exec(compile(text, "<schedule>", "exec"), names)
    return names


def agree(exported: Found, rates: Any, momenta: Any = None, *, tolerance: float = 1e-12) -> None:
    """Compare (groups, T) rates and momenta with the trial's, to a part of the peak rate."""
    expected = exported.trace
    within = tolerance * expected.rates.max()
    np.testing.assert_allclose(np.atleast_2d(rates), expected.rates, rtol=0, atol=within)
    if expected.momenta is not None:
        np.testing.assert_allclose(np.atleast_2d(momenta), expected.momenta, rtol=0, atol=tolerance)


class Model(nn.Module):
    """Two weights, in the shape that the Trainer wants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, labels=None):
        return {"loss": (self.layer(inputs) - labels).pow(2).mean()}


class Samples(torch.utils.data.Dataset):
    """As many pairs as fill an epoch, one a batch."""

    def __len__(self) -> int:
        return STEPS_PER_EPOCH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": torch.ones(2), "labels": torch.zeros(1)}
