"""Changed conditions: which plan each makes, and which are refused."""

from __future__ import annotations

import pytest
from facts import make_facts
from records import make_record

from clrsearch.errors import PlanError
from clrsearch.search import Condition, load_plan, read_conditions
from clrsearch.search.rescaling import respaced

FACTS = make_facts()  # 20 epochs of 40 batches of 32
PLAN = load_plan(
    None,
    {
        "options.model": "small",
        "bounds.cyclic.cycles": [2, 3],
        "start.cyclic": 0.3,
        "range_test": True,
    },
)
CYCLIC = make_record(
    0.1, number=7, params={"max_lr": 0.1, "cycles": 3, "stepsize": 4, "cycle_momentum": True}
)
CONSTANT = make_record(0.2, number=9, family="constant", params={"lr": 0.1})


def changed(key, value, plan=PLAN, facts=FACTS):
    (condition,) = read_conditions({key: [value]}, plan, facts)
    return condition.plan(plan, facts, [CYCLIC, CONSTANT])


def test_one_value_is_changed_and_nothing_is_searched() -> None:
    found = changed("weight_decay", "3x")
    assert found.weight_decay == "3x"
    assert (found.families, found.baseline) == (("cyclic", "constant"), "constant")
    assert (found.bounds, found.start, found.range_test) == ({}, {}, False)
    assert not found.confirm.enabled
    assert found.options == {"model": "small"}
    assert changed("options.model", "large").options == {"model": "large"}
    assert changed("options.width", 64).options == {"model": "small", "width": 64}
    assert changed("seed", 3).seed == 3
    assert changed("batch_size", 64).batch_size == 64
    assert changed("epochs", 90).epochs == 90


def test_limits_and_earlier_studies_are_those_of_the_search_alone() -> None:
    plan = load_plan(None, {"like": ["OLD"], "trunks": 9, "minutes": 30, "seeds": 2})
    found = changed("seed", 3, plan)
    assert (found.like, found.trunks, found.budgeted, found.trials) == ((), None, False, 100)
    assert found.seeds == 2


def test_a_length_in_steps_follows_the_batch_size() -> None:
    facts = make_facts(epochs=4, steps_per_epoch=500, steps=2000, validate_every=500)
    plan = load_plan(None, {"steps": 2000, "validate_every": 500})
    found = changed("batch_size", 64, plan, facts)
    assert (found.batch_size, found.steps, found.validate_every) == (64, 1000, 250)
    with pytest.raises(PlanError, match="epochs: the length of this study is 2000 steps"):
        changed("epochs", 3, plan, facts)


def test_hand_written_rates_are_stretched_if_they_are_compared() -> None:
    rates = [[5, 0.1], [15, 0.01]]
    plan = load_plan(None, {"families": ["cyclic", "manual"], "manual": rates})
    (longer,) = read_conditions({"epochs": [40]}, plan, FACTS)
    by_hand = make_record(0.2, number=3, family="manual", params={"scale": 1.0})
    assert longer.plan(plan, FACTS, [by_hand]).manual == ((10, 0.1), (30, 0.01))
    assert longer.plan(plan, FACTS, [CYCLIC]).manual is None


def test_labels_are_in_order_and_once_each() -> None:
    asked = {"weight_decay": ["3x", 0.1, "3x"], "options.model": ["large"], "seed": [1, 2]}
    assert [each.label for each in read_conditions(asked, PLAN, FACTS)] == [
        "weight_decay=3x",
        "weight_decay=0.1",
        "options.model=large",
        "seed=1",
        "seed=2",
    ]


def test_equal_values_are_one_condition() -> None:
    asked = {"weight_decay": ["3x", "3 x", "3.0x", ".3x", "0.30x", 0.1, "1e-1", 2, 2.0]}
    found = read_conditions(asked, PLAN, FACTS)
    assert [each.label for each in found] == [
        "weight_decay=3x",
        "weight_decay=0.3x",
        "weight_decay=0.1",
        "weight_decay=2",
    ]
    assert [each.value for each in found] == ["3x", "0.3x", 0.1, 2]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", 0.1, "vary lr: cannot be changed; available: weight_decay, batch_size, epochs"),
        ("batchsize", 1, "vary batchsize: cannot be changed; did you mean batch_size"),
        ("options.", 1, "vary options.: cannot be changed"),
        ("weight_decay", "1x", "vary weight_decay=1x: that is how the study was searched"),
        ("weight_decay", 1, None),
        ("weight_decay", "heavy", "weight_decay: 'heavy' is neither a number, 0 or more, nor"),
        ("weight_decay", "-3x", "weight_decay: '-3x' is neither"),
        ("batch_size", 32, "vary batch_size=32: that is how"),
        ("batch_size", 0, "batch_size: .* greater than or equal to 1, not 0"),
        ("batch_size", "large", "batch_size: must be a whole number, not 'large'"),
        ("epochs", 20, "vary epochs=20: that is how"),
        ("epochs", 1.5, "epochs: must be a whole number"),
        ("seed", 0, "vary seed=0: that is how"),
        ("options.model", "small", "vary options.model=small: that is how"),
        ("options.model", [1], r"options.model: \[1\] is not a number, string or boolean"),
        ("options.model", "x" * 300, "vary options.model: the value is too long"),
    ],
)
def test_what_cannot_be_changed_is_told(key, value, message) -> None:
    if message is None:
        assert read_conditions({key: [value]}, PLAN, FACTS)
        return
    with pytest.raises(PlanError, match=message):
        read_conditions({key: [value]}, PLAN, FACTS)


def test_a_key_needs_a_value() -> None:
    with pytest.raises(PlanError, match="vary seed: no value given"):
        read_conditions({"seed": []}, PLAN, FACTS)
    with pytest.raises(PlanError, match="vary seed: no value given"):
        read_conditions({"seed": [None]}, PLAN, FACTS)


def test_a_factor_on_a_factor_is_refused() -> None:
    plan = load_plan(None, {"weight_decay": "3x"})
    with pytest.raises(PlanError, match="the study's own weight_decay is 3x, so give a number"):
        read_conditions({"weight_decay": ["0.3x"]}, plan, FACTS)
    assert read_conditions({"weight_decay": [0.1]}, plan, FACTS)
    with pytest.raises(PlanError, match=r"weight_decay=0.1: that is how"):
        read_conditions({"weight_decay": [0.1]}, load_plan(None, {"weight_decay": 0.1}), FACTS)


def test_finalists_keep_their_rates_and_their_shares_of_the_run() -> None:
    new = respaced(FACTS, epochs=90, batch_size=512)
    found = Condition(key="seed", value=1).finalists([CYCLIC, CONSTANT], FACTS, new)
    assert found[7].params == {**CYCLIC.params, "stepsize": 18}
    assert found[9].params == {"lr": 0.1}


def test_a_momentum_cannot_be_cycled_by_an_optimizer_without_one() -> None:
    plain = make_facts(momentum="none", optimizer="SGD()")
    with pytest.raises(
        PlanError, match=r"vary seed=1: cyclic \(trial 7\) cycles the momentum, which SGD\(\)"
    ):
        Condition(key="seed", value=1).finalists([CYCLIC], FACTS, plain)
    still = make_record(0.1, params={"max_lr": 0.1, "cycle_momentum": False})
    assert Condition(key="seed", value=1).finalists([still], FACTS, plain)[0].params == {
        "max_lr": 0.1
    }
