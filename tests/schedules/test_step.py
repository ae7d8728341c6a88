"""Rates that fall by a factor, against arithmetic done by hand, and what they refuse."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from clrsearch.errors import ScheduleError
from clrsearch.schedules import (
    Exponential,
    MultiStep,
    Range,
    Schedule,
    Setting,
    SourceFile,
    Step,
    render,
    trace,
)


def rates(schedule: Schedule, steps: int) -> list[float]:
    return trace(schedule, steps).rates[0].tolist()


def setting(**changes) -> Setting:
    given = {"epochs": 20, "steps_per_epoch": 31, "base_lr": 0.05, "momentum": "momentum"}
    return Setting(**(given | changes))


def test_step() -> None:
    assert rates(Step(lr=8.0, step_size=3, gamma=0.5), 8) == [8, 8, 8, 4, 4, 4, 2, 2]


def test_step_counts_from_the_end_of_the_warm_up() -> None:
    schedule = Step(lr=8.0, step_size=2, gamma=0.5, warmup=3)
    assert rates(schedule, 9) == [2, 4, 6, 8, 8, 4, 4, 2, 2]


def test_multistep_counts_from_the_beginning() -> None:
    assert rates(MultiStep(lr=8.0, milestones=(2, 5), gamma=0.25), 7) == [8, 8, 2, 2, 2, 0.5, 0.5]
    warmed = MultiStep(lr=8.0, milestones=(2, 5), gamma=0.25, warmup=1)
    assert rates(warmed, 7) == [4, 8, 2, 2, 2, 0.5, 0.5]


def test_exponential() -> None:
    assert rates(Exponential(lr=8.0, gamma=0.5), 4) == [8, 4, 2, 1]
    assert rates(Exponential(lr=8.0, gamma=0.5, warmup=1), 5) == [4, 8, 4, 2, 1]


def test_groups_keep_their_ratio() -> None:
    both = trace(Exponential(lr=8.0, gamma=0.5), 3, (1.0, 10.0)).rates
    assert both.tolist() == [[8, 4, 2], [80, 40, 20]]


@pytest.mark.parametrize("drops", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("share", [0.0, 0.037, 0.2])
@pytest.mark.parametrize("steps_per_epoch", [7, 31, 100])
def test_the_drops_cut_what_the_warm_up_leaves_into_equal_parts(
    drops, share, steps_per_epoch
) -> None:
    asked = setting(steps_per_epoch=steps_per_epoch)
    params = {"lr": 1.0, "drops": drops, "gamma": 0.5, "warmup_share": share}
    schedule = Step.build(params, asked)
    behind = np.array(rates(schedule, asked.horizon)[schedule.warmup :])
    lengths = [len(list(group)) for _, group in itertools.groupby(behind)]
    assert len(lengths) == drops + 1  # no more drop in the last steps
    assert max(lengths) - min(lengths) <= drops + 1


@pytest.mark.parametrize("steps_per_epoch", [5, 10, 13, 29, 31, 32, 47, 62])
def test_stretched_code_has_no_drop_too_many(steps_per_epoch) -> None:
    schedule = Step.build({"lr": 1.0, "drops": 2, "gamma": 0.1, "warmup_share": 0.0}, setting())
    file = SourceFile(title="A.", found={}, optimizer="SGD()", epochs=20, steps_per_epoch=31)
    namespace: dict = {}
    exec(render(schedule, file), namespace)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = namespace["make_scheduler"](optimizer, steps_per_epoch)
    for _ in range(20 * steps_per_epoch - 1):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01, rel=1e-12)


def test_milestones_are_searched_as_shares_of_what_is_left() -> None:
    params = {"lr": 1.0, "drops": 3, "gamma": 0.2, "warmup_share": 0.0}
    places = {"first_milestone": 0.3, "second_milestone": 3 / 7, "third_milestone": 0.5}
    schedule = MultiStep.build(params | places, setting())
    assert schedule.milestones == (186, 372, 496)  # 0.3, 0.6 and 0.8 of 620
    warmed = MultiStep.build(params | places | {"warmup_share": 0.1}, setting())
    assert warmed.milestones == (229, 397, 508)  # 62 + 167.4; + 3/7 of 390.6; + 1/2 of 223.2


def test_milestones_increase_however_short_the_run_is() -> None:
    params = {"lr": 1.0, "drops": 3, "gamma": 0.2, "warmup_share": 0.2}
    places = {"first_milestone": 0.2, "second_milestone": 0.2, "third_milestone": 0.2}
    schedule = MultiStep.build(params | places, setting(epochs=4, steps_per_epoch=1))
    assert schedule.milestones == (2, 3, 4)


def test_a_milestone_is_searched_where_there_are_so_many_drops() -> None:
    space = MultiStep.space(setting())
    assert space["drops"].domain == Range(low=1, high=3, integer=True)
    searched = {
        drops: [name for name, p in space.items() if p.applies({"drops": drops})]
        for drops in (1, 2, 3)
    }
    assert [name for name in searched[1] if "milestone" in name] == ["first_milestone"]
    assert [name for name in searched[2] if "milestone" in name] == [
        "first_milestone",
        "second_milestone",
    ]
    assert searched[3] == list(space)
    assert "third_milestone" not in MultiStep.space(setting(epochs=3))


def test_gamma_is_searched_as_the_share_left_at_the_horizon() -> None:
    params = {"lr": 2.0, "rate_left": 0.05, "warmup_share": 0.1}
    schedule = Exponential.build(params, setting())
    assert schedule.gamma**558 == pytest.approx(0.05, rel=1e-9)
    assert rates(schedule, 621)[620] == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize(("epochs", "most"), [(2, 1), (4, 3), (6, 5), (90, 5)])
def test_drops_lie_between_epochs(epochs, most) -> None:
    drops = Step.space(setting(epochs=epochs))["drops"].domain
    assert drops == Range(low=1, high=most, integer=True)


@pytest.mark.parametrize("family", [Step, MultiStep])
def test_under_two_epochs_no_drop_fits(family) -> None:
    with pytest.raises(ScheduleError, match="at least 2 epochs; there is 1"):
        family.space(setting(epochs=1))
    assert Exponential.space(setting(epochs=1))


def test_what_practitioners_do_comes_first() -> None:
    first = Step.seed_points(setting(), Step.space(setting()))
    assert Step.build(first[0], setting()) == Step(lr=0.05, step_size=207, gamma=0.1)
    cifar, wide = (
        MultiStep.build(params, setting())
        for params in MultiStep.seed_points(setting(), MultiStep.space(setting()))
    )
    assert cifar == MultiStep(lr=0.05, milestones=(310, 465), gamma=0.1)
    assert wide == MultiStep(lr=0.05, milestones=(186, 372, 496), gamma=0.2)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        (Step, {"step_size": 0}, "step_size must be a positive number of steps"),
        (Step, {"step_size": -3}, "step_size must be a positive number of steps"),
        (Step, {"step_size": 2.5}, "step_size must be a whole number of steps, not 2.5"),
        (Step, {"gamma": 0.0}, "gamma must be in"),
        (Step, {"gamma": 1.5}, "gamma must be in"),
        (Step, {"gamma": math.nan}, "gamma must be in"),
        (Step, {"lr": -1.0}, "lr must be positive"),
        (Step, {"warmup": -1.0}, "warmup must be 0 or more"),
        (MultiStep, {"milestones": ()}, "milestones must contain at least one step"),
        (MultiStep, {"milestones": (0, 3)}, "milestones must be a positive number"),
        (MultiStep, {"milestones": (2.5,)}, "milestones must be a whole number"),
        (MultiStep, {"milestones": (3, 3)}, "milestones must increase, but 3 follows 3"),
        (MultiStep, {"milestones": (5, 3)}, "milestones must increase, but 3 follows 5"),
        (MultiStep, {"milestones": (3,), "warmup": 3}, "milestones must be after the warm-up 3"),
        (MultiStep, {"gamma": -0.1}, "gamma must be in"),
        (MultiStep, {"lr": math.inf}, "lr must be positive"),
        (Exponential, {"gamma": 0.0}, "gamma must be in"),
        (Exponential, {"gamma": 1.01}, "gamma must be in"),
        (Exponential, {"lr": 0.0}, "lr must be positive"),
    ],
)
def test_wrong_values_are_refused_by_name(family, changes, named) -> None:
    own = {Step: {"step_size": 3}, MultiStep: {"milestones": (3, 5)}, Exponential: {}}[family]
    with pytest.raises(ScheduleError, match=named):
        family(**({"lr": 1.0, "gamma": 0.5} | own | changes))
