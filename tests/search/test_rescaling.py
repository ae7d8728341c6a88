"""A schedule for another batch size and length: against torch's schedulers, built by hand."""

from __future__ import annotations

import pytest
import torch
from facts import make_facts, make_two_groups
from torch.optim import lr_scheduler

from clrsearch.errors import PlanError, TaskError
from clrsearch.schedules import trace
from clrsearch.search import build_space, load_plan, rescaled, respaced
from clrsearch.search.rescaling import rule_of

FOUND = make_facts(momentum="none", optimizer="SGD()")  # 20 epochs of 40 batches of 32
NEW = respaced(FOUND, epochs=10, batch_size=128)  # 10 epochs of 10 steps, rates x 4
SPLITS = ((1000.0, 0.1), (400.0, 0.1))


def rescale(family, params, facts=FOUND, new=NEW, **changes):
    plan = load_plan(None, {"families": [family], **changes})
    return rescaled(build_space(plan, facts), facts, family, params, new)


def torchs(make, lr=1.0, steps=100):
    """The rates that a torch scheduler sets before each step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


CYCLE = {"max_lr": 0.1, "base_ratio": 0.25, "cycles": 2, "cycle_momentum": False}
SMITH = {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 25, "cycle_momentum": False}
PEAK = {"lr": 0.1, "warmup_share": 0.0}


def wsd(step):
    return 1.0 if step <= 80 else 1 - (step - 80) / 20


def warmed_up(step):
    return (step + 1) / 11 if step < 10 else 1 - (step - 10) / 90


CASES = [
    ("constant", {"lr": 0.1}, lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.4)),
    ("cyclic", {"mode": "triangular", **CYCLE}, lambda o: lr_scheduler.CyclicLR(o, **SMITH)),
    (
        "cyclic",
        {"mode": "triangular2", **CYCLE},
        lambda o: lr_scheduler.CyclicLR(o, mode="triangular2", **SMITH),
    ),
    (
        "cyclic",
        {"mode": "exp_range", "amplitude_left": 0.1, **CYCLE},
        lambda o: lr_scheduler.CyclicLR(o, mode="exp_range", gamma=0.1**0.01, **SMITH),
    ),
    (
        "onecycle",
        {
            "max_lr": 0.1,
            "pct_start": 0.3,
            "div_factor": 25.0,
            "final_div_factor": 1e4,
            "anneal_strategy": "cos",
        },
        lambda o: lr_scheduler.OneCycleLR(o, 0.4, total_steps=100, cycle_momentum=False),
    ),
    (
        "cosine",
        {**PEAK, "min_ratio": 0.1},
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=100, eta_min=0.04),
    ),
    (
        "cosine_restarts",
        {**PEAK, "cycles": 2, "T_mult": 1, "min_ratio": 0.0},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=50),
    ),
    ("linear", PEAK, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=100)),
    (
        "linear",
        {"lr": 0.1, "warmup_share": 0.1},
        lambda o: lr_scheduler.LambdaLR(o, warmed_up),
    ),
    (
        "polynomial",
        {**PEAK, "power": 2.0},
        lambda o: lr_scheduler.PolynomialLR(o, total_iters=100, power=2.0),
    ),
    ("step", {**PEAK, "drops": 1, "gamma": 0.1}, lambda o: lr_scheduler.StepLR(o, 50, gamma=0.1)),
    (
        "multistep",
        {**PEAK, "drops": 2, "gamma": 0.1, "first_milestone": 0.5, "second_milestone": 0.5},
        lambda o: lr_scheduler.MultiStepLR(o, [50, 75], gamma=0.1),
    ),
    (
        "exponential",
        {**PEAK, "rate_left": 0.01},
        lambda o: lr_scheduler.ExponentialLR(o, gamma=0.01**0.01),
    ),
    (
        "wsd",
        {**PEAK, "decay_share": 0.2, "shape": "linear", "min_ratio": 0.0},
        lambda o: lr_scheduler.LambdaLR(o, wsd),
    ),
]
BY_FACTOR = ("constant", "cyclic", "onecycle")  # whose scheduler above says the rate itself


@pytest.mark.parametrize(("family", "params", "make"), CASES)
def test_every_family_keeps_its_shape_over_the_new_steps(family, params, make) -> None:
    found = rescale(family, params)
    lr = 1.0 if family in BY_FACTOR else 0.4
    horizon = 100
    expected = torchs(make, lr)
    assert trace(found.schedule, horizon).rates[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.factor == 4.0
    assert found.rule is not None and found.rule.name == "linear"


def test_hand_written_rates_are_stretched_too() -> None:
    found = rescale("manual", {"scale": 0.5}, manual=[[5, 0.2], [[5, 20], 0.02]])
    rates = trace(found.schedule, 100).rates[0]
    assert rates == pytest.approx([0.4] * 25 + [0.04] * 75)
    assert found.manual == ((2.5, 0.2), ((2.5, 10), 0.02))


def test_a_users_function_takes_another_batch_size_but_no_other_epochs() -> None:
    plan = load_plan(None, {"families": ["manual"], "manual": "mine.py:rate"})
    space = build_space(plan, FOUND, lambda step, each: 0.1 if step < 2 * each else 0.01)
    larger = respaced(FOUND, batch_size=128)
    found = rescaled(space, FOUND, "manual", {"scale": 1.0}, larger)
    assert trace(found.schedule, 200).rates[0] == pytest.approx([0.4] * 20 + [0.04] * 180)
    with pytest.raises(PlanError, match=r"mine.py:rate is your own function .* 20 epochs"):
        rescaled(space, FOUND, "manual", {"scale": 1.0}, NEW)


@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [
        ("SGD(momentum=0.9, nesterov=True)", "linear"),
        ("ASGD()", "linear"),
        ("AdamW(betas=(0.9, 0.999))", "square root"),
        ("RMSprop(momentum=0.9)", "square root"),
        ("Adagrad()", "square root"),
        ("Lion(betas=(0.9, 0.99))", "square root"),
    ],
)
def test_rates_grow_in_proportion_for_sgd_and_by_the_root_for_others(optimizer, rule) -> None:
    assert rule_of(optimizer).name == rule
    facts = make_facts(momentum="none", optimizer=optimizer)
    new = respaced(facts, batch_size=128)
    found = rescale("constant", {"lr": 0.1}, facts=facts, new=new)
    assert found.schedule.lr == pytest.approx(0.4 if rule == "linear" else 0.2)


def test_other_epochs_leave_the_rates_alone() -> None:
    found = rescale("constant", {"lr": 0.1}, new=respaced(FOUND, epochs=90))
    assert (found.factor, found.rule, found.schedule.lr) == (1.0, None, 0.1)


def test_factors_of_groups_and_momenta_stay() -> None:
    facts = make_two_groups()
    plan = load_plan(None, {"families": ["cyclic"], "groups.head": [1, 30]})
    momenta = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
    params = {**CYCLE, "mode": "triangular", **momenta, "groups.head": 7.0}
    new = respaced(facts, batch_size=16)
    found = rescaled(build_space(plan, facts), facts, "cyclic", params, new)
    assert found.params == {**params, "max_lr": 0.05}
    assert (found.schedule.base_momentum, found.schedule.max_momentum) == (0.85, 0.95)


def test_a_stepsize_in_whole_epochs_keeps_its_share_as_far_as_it_can() -> None:
    params = {"mode": "triangular", "max_lr": 0.1, "base_ratio": 0.25, "stepsize": 4}
    for epochs, steps in ((90, 18 * 40), (11, 2 * 40), (3, 1 * 40)):
        new = respaced(FOUND, epochs=epochs)
        found = rescale("cyclic", params, new=new, stepsize="integers")
        assert found.schedule.step_size_up == steps


def test_what_a_search_would_not_try_is_told_and_what_is_impossible_refused() -> None:
    params = {**CYCLE, "mode": "triangular", "cycles": 5}
    longer = rescale("cyclic", params, new=respaced(FOUND, epochs=200))
    assert longer.beyond == "cycles 5 is outside its usual range, 10 to 50"
    assert longer.schedule.step_size_up == 800.0
    assert rescale("cyclic", params, new=respaced(FOUND, epochs=30)).beyond == ""
    tiny = make_facts(momentum="none", optimizer="SGD()", steps_per_epoch=2)
    assert "5 is outside" in rescale("cyclic", params, tiny, respaced(tiny, epochs=6)).beyond
    with pytest.raises(PlanError, match=r"cyclic schedule is impossible in 2 steps: half a cycle"):
        rescale("cyclic", params, tiny, respaced(tiny, epochs=1))
    short = rescale(
        "cosine_restarts",
        {**PEAK, "cycles": 2, "T_mult": 2, "min_ratio": 0.0},
        new=respaced(FOUND, epochs=2),
    )
    assert short.beyond.startswith("two cycles, the second twice as long")


def test_steps_follow_from_the_samples_where_they_are_known() -> None:
    facts = make_facts(steps_per_epoch=31, splits=SPLITS)  # 1000 samples, the last 8 dropped
    assert respaced(facts, batch_size=128).steps_per_epoch == 7
    assert respaced(facts, batch_size=1000).steps_per_epoch == 1
    assert respaced(facts, batch_size=1).steps_per_epoch == 1000
    with pytest.raises(PlanError, match="batch_size: 1001 exceeds the 1000 training samples"):
        respaced(facts, batch_size=1001)
    accumulated = make_facts(steps_per_epoch=15, splits=SPLITS)  # two batches a step
    assert respaced(accumulated, batch_size=64).steps_per_epoch == 8


def test_steps_follow_from_the_batch_sizes_where_samples_are_not_known() -> None:
    assert respaced(FOUND, batch_size=30).steps_per_epoch == 43
    assert respaced(FOUND, batch_size=2000).steps_per_epoch == 1
    with pytest.raises(PlanError, match="batch_size: 4000 leaves no step in an epoch"):
        respaced(FOUND, batch_size=4000)


def test_a_length_in_steps_sees_as_many_samples_as_before() -> None:
    facts = make_facts(epochs=4, steps_per_epoch=500, steps=2000, validate_every=500)
    new = respaced(facts, batch_size=128)
    assert (new.steps, new.validate_every, new.epochs, new.horizon) == (500, 125, 4, 500)
    with pytest.raises(PlanError, match="epochs: the length of this study is 2000 steps"):
        respaced(facts, epochs=90)


def test_validations_within_epochs_keep_their_places() -> None:
    facts = make_facts(validate_every=10)
    assert respaced(facts, batch_size=64).validate_every == 5
    assert respaced(facts, epochs=5).validate_every == 10


def test_epochs_of_different_length_stay_so() -> None:
    facts = make_facts(epochs=4, steps_per_epoch=3.5, batch_size=32)
    new = respaced(facts, batch_size=16)
    assert (new.horizon, new.epochs, new.steps_per_epoch) == (28, 4, 7)
    assert respaced(facts, epochs=5).horizon == 18  # 17.5


def test_a_loop_has_no_batch_size_to_rescale_from() -> None:
    loop = make_facts(batch_size=None)
    with pytest.raises(PlanError, match="batch_size: a custom training loop makes its own"):
        respaced(loop, batch_size=64)
    assert respaced(loop, epochs=40).horizon == 1600


def test_the_same_values_are_the_same_facts() -> None:
    assert respaced(FOUND, epochs=20, batch_size=32) == FOUND == respaced(FOUND)


def test_more_epochs_than_steps_are_refused() -> None:
    uneven = make_facts(epochs=4, steps_per_epoch=1.5)
    with pytest.raises(TaskError, match="4 epochs cannot share 3 steps"):
        respaced(uneven, batch_size=64)
