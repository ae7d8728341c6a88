"""Traces on the optimizers that keep their rate in a tensor, and on those that do not."""

from __future__ import annotations

import pytest
import torch

from clrsearch.schedules import Linear, trace
from clrsearch.training.playback import Player, TraceScheduler, load_optimizer


def optimizer(lr: float | torch.Tensor) -> torch.optim.Adam:
    return torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=lr)


def test_a_rate_that_is_a_tensor_stays_that_tensor() -> None:
    rate = torch.tensor(0.5)
    own = optimizer(rate)
    player = Player(trace(Linear(lr=1.0, horizon=4), 4), own)
    for step, expected in enumerate([1.0, 0.75, 0.5, 0.25, 0.25]):
        player.play(step)
        assert own.param_groups[0]["lr"] is rate
        assert rate.item() == expected


def test_it_is_the_same_tensor_after_a_restore() -> None:
    rate = torch.tensor(0.5)
    own = optimizer(rate)
    saved = own.state_dict()
    saved["param_groups"][0]["lr"] = torch.tensor(0.25)
    load_optimizer(own, saved)
    assert own.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whoever_changes_such_a_rate_is_noticed(dtype) -> None:
    rate = torch.tensor(0.5, dtype=dtype)
    scheduler = TraceScheduler(optimizer(rate), trace(Linear(lr=0.3, horizon=4), 4), lambda _: None)
    assert not scheduler.disturbed
    scheduler.optimizer.step()
    scheduler.step()
    assert not scheduler.disturbed  # 0.225 in single precision
    rate.fill_(0.1)
    assert scheduler.disturbed
