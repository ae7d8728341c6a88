"""Schedule-Free: its rates by hand, what is searched, and what its file says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import schedulefree
import torch

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    Constant,
    Linear,
    ScheduleFree,
    Setting,
    SourceFile,
    averaging_of,
    check_optimizer,
    render_optimizer,
    trace,
)

SCHEDULE = ScheduleFree(lr=0.4, warmup=3, beta=0.95)
FILE = SourceFile(
    title="A test.",
    found={"study": "none"},
    optimizer="SGD(momentum=0.9)",
    epochs=3,
    steps_per_epoch=4,
)


def test_the_rate_rises_and_is_held() -> None:
    rates, momenta = SCHEDULE.at(np.arange(6.0))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rel=1e-15)
    assert momenta is None


def test_a_trace_says_which_optimizer_it_is_for() -> None:
    assert trace(SCHEDULE, 5).averaging == 0.95
    assert trace(SCHEDULE, 5).before([2, 4]).averaging == 0.95
    assert averaging_of(Constant(lr=0.4)) is None
    assert trace(Linear(lr=0.4, horizon=9), 5).averaging is None


@pytest.mark.parametrize(("momentum", "factor"), [("none", 1), ("momentum", 10), ("betas", 1)])
def test_rates_without_momentum_are_as_much_higher_as_it_made_the_steps(momentum, factor) -> None:
    setting = Setting(epochs=10, steps_per_epoch=10, base_lr=0.03, momentum=momentum)
    space = ScheduleFree.space(setting)
    assert space["lr"].domain.low == pytest.approx(0.001 * factor)
    assert space["lr"].domain.high == pytest.approx(0.9 * factor)
    first, second = ScheduleFree.seed_points(setting, space)
    assert first == {"lr": pytest.approx(0.03 * factor), "beta": 0.9, "warmup_share": 0.05}
    assert second["lr"] == pytest.approx(0.09 * factor)
    assert ScheduleFree.build(first, setting).warmup == 5


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, float("nan")])
def test_a_beta_out_of_range_is_refused(beta) -> None:
    with pytest.raises(ScheduleError, match="beta must be above 0 and below 1"):
        ScheduleFree(lr=0.1, beta=beta)


def made(schedule: ScheduleFree, file: SourceFile, optimizer, length: int):
    names: dict = {}
    exec(render_optimizer(schedule, file), names)
    return names["make_optimizer"](optimizer, length)


def test_the_file_makes_the_packages_optimizer() -> None:
    weight = torch.zeros(1, requires_grad=True)
    fresh = torch.optim.AdamW([weight], lr=7.0, betas=(0.8, 0.98), eps=1e-6, weight_decay=0.3)
    adam = dataclasses.replace(FILE, optimizer="AdamW(betas=(0.8, 0.98))")
    twin = made(SCHEDULE, adam, fresh, 8)
    assert type(twin) is schedulefree.AdamWScheduleFree
    (group,) = twin.param_groups
    assert group["params"] == [weight]
    keys = ("lr", "betas", "eps", "weight_decay", "warmup_steps")
    assert tuple(group[key] for key in keys) == (0.4, (0.95, 0.98), 1e-6, 0.3, 7)  # 2 x 3 + 1


def test_without_a_warm_up_there_is_none() -> None:
    fresh = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=7.0)
    twin = made(ScheduleFree(lr=0.4, beta=0.95), FILE, fresh, 4)
    assert type(twin) is schedulefree.SGDScheduleFree
    assert twin.param_groups[0]["warmup_steps"] == 0
    assert twin.param_groups[0]["momentum"] == 0.95


def test_the_file_shows_how_its_weights_are_switched() -> None:
    text = render_optimizer(SCHEDULE, FILE)
    for line in ("optimizer.train()", "optimizer.eval()", "swa_utils.update_bn(loader, model)"):
        assert line in text
    steps = render_optimizer(SCHEDULE, dataclasses.replace(FILE, total_steps=12))
    assert "make_optimizer(optimizer, total_steps)" in steps
    assert "EPOCHS" not in steps
    assert "optimizer.eval()" in steps


@pytest.mark.parametrize(
    "other",
    [
        ScheduleFree(lr=0.4 + 1e-10, warmup=3, beta=0.95),
        ScheduleFree(lr=0.4, warmup=2, beta=0.95),
        ScheduleFree(lr=0.4, warmup=3, beta=0.95 + 1e-10),
    ],
)
def test_code_of_another_schedule_is_noticed(other) -> None:
    ratios = (1.0, 10.0)
    file = dataclasses.replace(FILE, multipliers=(1.0, 0.5))
    expected = trace(SCHEDULE, 12, (1.0, 5.0))
    check_optimizer(render_optimizer(SCHEDULE, file), expected, file=file, ratios=ratios)
    with pytest.raises(ScheduleError, match="the code deviates from the schedule at step 0"):
        check_optimizer(render_optimizer(other, file), expected, file=file, ratios=ratios)
