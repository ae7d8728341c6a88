"""The space of a study: bounds narrow it, and wrong ones are answered by key."""

from __future__ import annotations

import pytest
from facts import make_facts

from clrsearch.errors import PlanError
from clrsearch.schedules import FAMILIES, Choice, Cyclic, Range
from clrsearch.search import build_space, load_plan, require_size

FACTS = make_facts(steps_per_epoch=31)
PLAIN = FACTS.model_copy(update={"momentum": "none", "optimizer": "SGD()"})


def space(changes=None, facts=FACTS):
    return build_space(load_plan(None, changes), facts)


def test_without_bounds_the_families_ranges_hold() -> None:
    found = space()
    assert set(found.families) == set(FAMILIES) - {"manual", "schedule_free"}
    assert found.families["cyclic"] == Cyclic.space(found.setting)


def test_a_power_of_wsd_is_searched_where_bounds_name_it() -> None:
    wsd = space({"families": ["wsd"], "bounds.wsd.power": [0.5, 2]}).families["wsd"]
    assert wsd["power"].domain == Range(low=0.5, high=2, log=True)
    assert "shape" not in wsd
    assert "power" not in space().families["wsd"]


def test_two_numbers_search_one_fixes_and_texts_choose() -> None:
    cyclic = space(
        {
            "bounds.cyclic.max_lr": [1e-3, 1],
            "bounds.cyclic.cycles": 2,
            "bounds.cyclic.mode": ["exp_range", "triangular"],
            "bounds.cyclic.cycle_momentum": True,
            "bounds.cyclic.base_momentum": [0.6, 0.7],
        }
    ).families["cyclic"]
    assert cyclic["max_lr"].domain == Range(low=1e-3, high=1, log=True)
    assert cyclic["cycles"].domain == Range(low=2, high=2, integer=True)
    assert cyclic["mode"].domain == Choice(options=("triangular", "exp_range"))
    assert cyclic["cycle_momentum"].domain == Choice(options=(True,))
    assert cyclic["base_momentum"].domain == Range(low=0.6, high=0.7)


def test_one_value_fixes_a_whole_number_outside_what_is_searched() -> None:
    cyclic = space({"bounds.cyclic.cycles": 9}).families["cyclic"]  # 20 epochs have 1 to 5
    assert cyclic["cycles"].domain == Range(low=9, high=9, integer=True)
    for cycles, message in ((0, "must be at least 1, not 0"), (311, "shorter than a step")):
        with pytest.raises(PlanError, match=message):
            space({"bounds.cyclic.cycles": cycles})


def test_a_family_starts_with_the_rate_that_the_plan_names() -> None:
    found = space({"start.cyclic": 0.3, "start.constant": 0.02, "bounds.cyclic.cycles": 2})
    (cyclic,) = found.seed_points("cyclic")
    assert (cyclic["max_lr"], cyclic["mode"], cyclic["cycles"]) == (0.3, "triangular", 2)
    assert found.seed_points("constant") == ({"lr": 0.02},)
    assert len(found.seed_points("linear")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start.cyclic": 3.0}, r"start.cyclic: 3 is outside the bounds of max_lr, .* to 1.5"),
        ({"start.cyclical": 0.1}, "start.cyclical: not a family of this study; did you mean cycli"),
        ({"start.cyclic": "high"}, "start.cyclic: 'high' is not a number"),
        ({"start.cyclic": float("nan")}, "start.cyclic: nan is not a finite number"),
    ],
)
def test_a_wrong_start_is_answered_by_key(changes, message) -> None:
    with pytest.raises(PlanError, match=message):
        space(changes)


def test_the_first_settings_stay_inside_the_bounds() -> None:
    found = space(
        {
            "bounds.cyclic.max_lr": [1e-3, 0.3],
            "bounds.cyclic.base_ratio": [0.01, 0.1],
            "bounds.cyclic.mode": "triangular2",
            "bounds.cyclic.cycle_momentum": False,
        }
    )
    (first,) = found.seed_points("cyclic")
    assert first == {
        "mode": "triangular2",
        "max_lr": pytest.approx(0.1),
        "base_ratio": 0.1,
        "cycles": 3,
        "cycle_momentum": False,
    }


@pytest.mark.parametrize(
    ("key", "bound", "message"),
    [
        ("cyclic.max_lr", [1.0, 0.1], "bounds.cyclic.max_lr: the lower end 1.0 is above"),
        ("cyclic.max_lr", [0.0, 0.1], "bounds.cyclic.max_lr: must be positive"),
        ("cyclic.max_lr", [0.1, 0.2, 0.3], "bounds.cyclic.max_lr: expected one or two numbers"),
        ("cyclic.max_lr", [], "bounds.cyclic.max_lr: no value given"),
        ("cyclic.max_lr", "high", "bounds.cyclic.max_lr: expected one or two numbers, not 'high'"),
        ("cyclic.max_lr", True, "bounds.cyclic.max_lr: expected one or two numbers"),
        ("cyclic.max_lr", [0.1, float("nan")], "bounds.cyclic.max_lr: "),
        ("cyclic.max_lr", [0.1, float("inf")], "bounds.cyclic.max_lr: "),
        ("cyclic.maxlr", 0.1, "bounds.cyclic.maxlr: cyclic has no such.*did you mean max_lr"),
        ("cyclic.cycles", [1, 2.5], "bounds.cyclic.cycles: expected whole numbers"),
        ("cyclic.cycles", [1, 9], "bounds.cyclic.cycles: .*outside 1 to 5"),
        ("cyclic.mode", "triangle", "bounds.cyclic.mode: 'triangle' is not one of 'triangular'"),
        ("cyclic.mode", 3, "bounds.cyclic.mode: 3 is not one of"),
        ("cyclic.cycle_momentum", 1, "bounds.cyclic.cycle_momentum: 1 is not one of False, True"),
        ("cyclic.base_ratio", [0.1, 2.0], "bounds.cyclic: .* base_lr .* is above max_lr"),
        ("cyclic.max_momentum", [0.9, 1.5], "bounds.cyclic: .*max_momentum must be in"),
        ("cyclic.base_momentum", [0.5, 0.97], "bounds.cyclic: .*base_momentum 0.97 is above"),
        ("cyclic.stepsize", 4, "bounds.cyclic.stepsize: cyclic has no such parameter"),
        ("constant.lr", [-1, 1], "bounds.constant.lr: must be positive"),
    ],
)
def test_wrong_bounds_are_answered_by_key(key, bound, message) -> None:
    with pytest.raises(PlanError, match=message):
        space({f"bounds.{key}": bound})


def test_momentum_bounds_need_a_momentum() -> None:
    with pytest.raises(PlanError, match=r"base_momentum: the task's optimizer, SGD\(\), has no"):
        space({"bounds.cyclic.base_momentum": [0.8, 0.9]}, PLAIN)


def test_too_few_epochs_are_refused_with_the_reason() -> None:
    with pytest.raises(PlanError, match="cyclic does not fit: a cycle takes at least 4"):
        space({"stepsize": "integers"}, FACTS.model_copy(update={"epochs": 3}))
    only = load_plan(None, {"families": ["constant"]})
    assert build_space(only, FACTS.model_copy(update={"epochs": 1})).families


SHORT = make_facts(epochs=2, steps_per_epoch=25, steps=50, validate_every=25)
FRACTIONS = make_facts(epochs=3, steps_per_epoch=50 / 3, steps=50, validate_every=20)
UNEVEN = make_facts(epochs=4, steps_per_epoch=3.5)


@pytest.mark.parametrize(
    ("facts", "changes", "message"),
    [
        (
            SHORT,
            {"families": ["cosine_restarts"]},
            "need at least 3 validations; there are 2. Train longer, --set steps=75 or more, or",
        ),
        (
            make_facts(epochs=1, steps_per_epoch=50, steps=50, validate_every=50),
            {"families": ["step"]},
            "a drop needs a validation before and after it, so at least 2 validations; there is 1",
        ),
        (
            FRACTIONS,
            {"families": ["cyclic"], "stepsize": "integers"},
            "a cycle takes at least 4 validations, since stepsizes are 2 to 10; the run has 3",
        ),
        (
            FRACTIONS,
            {"bounds.cyclic.cycles": [1, 9], "families": ["cyclic"]},
            "outside 1 to 3, the range that the number of validations allows",
        ),
        *(
            (
                facts,
                {"families": ["manual"], "manual": manual},
                "manual does not fit: hand-written rates are for epochs, but the length is 50 "
                "steps; leave manual out of the families, or set epochs in place of steps",
            )
            for facts in (SHORT, FRACTIONS)
            for manual in ([[2, 0.1]], "mine.py:rate")
        ),
        *(
            (
                UNEVEN,
                {"families": ["manual"], "manual": manual},
                "manual does not fit: hand-written rates are for epochs of equal length, but these "
                "differ: 14 steps in 4 epochs; leave manual out of the families",
            )
            for manual in ([[4, 0.1]], "mine.py:rate")
        ),
    ],
)
def test_a_length_in_steps_is_refused_in_steps(facts, changes, message) -> None:
    with pytest.raises(PlanError) as caught:
        space(changes, facts)
    assert message in str(caught.value)


def test_too_many_steps_are_refused_as_what_they_were_given_as() -> None:
    long = make_facts(epochs=2, steps_per_epoch=3e7, steps=60_000_000, validate_every=30_000_000)
    with pytest.raises(PlanError, match=r"^steps: 60,000,000 steps give 60,000,000 learning rates"):
        require_size(long)
    uneven = make_facts(epochs=3, steps_per_epoch=100_000_000 / 3)
    with pytest.raises(PlanError, match=r"^epochs: 100,000,000 steps give"):
        require_size(uneven)
