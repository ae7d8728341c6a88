"""Which schedules are one: by what they play, not by what they are called."""

from __future__ import annotations

import pytest
from facts import make_two_groups
from records import make_record

from clrsearch.search import build_space, load_plan, one_each
from clrsearch.search.traces import Traces

FACTS = make_two_groups(epochs=4, steps_per_epoch=100)
SMITH = {"mode": "triangular", "max_lr": 0.1, "base_ratio": 0.25, "cycles": 1}
SMITH |= {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
PLAN = {"families": ["cyclic", "linear", "polynomial", "manual"], "manual": [[4, 0.1]]}


def traces(changes=None, **facts) -> Traces:
    found = FACTS.model_copy(update=facts)
    return Traces(build_space(load_plan(None, PLAN | (changes or {})), found), found)


def test_the_same_rates_under_schedule_free_are_another_schedule() -> None:
    known = traces({"families": ["constant", "schedule_free", "manual"]})
    free = {"lr": 0.1, "beta": 0.9, "warmup_share": 0.0}
    constant = known.number("constant", {"lr": 0.1})
    first = known.number("schedule_free", free)
    assert first != constant
    assert known.number("schedule_free", {**free, "beta": 0.95}) != first
    assert known.number("schedule_free", {**free, "warmup_share": 1e-9}) == first


def test_with_one_cycle_triangular2_is_triangular() -> None:
    short = traces()
    first = short.number("cyclic", SMITH)
    assert short.number("cyclic", {**SMITH, "mode": "triangular2"}) == first
    assert short.number("cyclic", dict(SMITH)) == first
    longer = traces({"manual": [[8, 0.1]]}, epochs=8)
    two = {**SMITH, "cycles": 2}
    assert longer.number("cyclic", two) != longer.number("cyclic", {**two, "mode": "triangular2"})


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "exp_range", "amplitude_left": 0.1},
        {"max_lr": 0.1001},
        {"base_ratio": 0.2501},
        {"base_momentum": 0.8501},
        {"cycle_momentum": False},
    ],
)
def test_other_rates_or_momenta_are_another_schedule(other) -> None:
    found = traces()
    assert found.number("cyclic", SMITH) != found.number("cyclic", SMITH | other)


def test_what_agrees_at_the_steps_looked_at_is_compared_as_a_whole(monkeypatch) -> None:
    monkeypatch.setattr(Traces, "_looks", lambda self, schedule, ratios: None)
    found = traces()
    first = found.number("cyclic", SMITH)
    for other in ({"max_lr": 0.1001}, {"base_momentum": 0.8501}, {"cycle_momentum": False}):
        assert found.number("cyclic", SMITH | other) != first
    assert found.number("cyclic", SMITH | {"mode": "triangular2"}) == first


def test_schedules_of_two_families_can_be_one() -> None:
    found = traces()
    line = {"lr": 0.1, "warmup_share": 0.1}
    assert found.number("linear", line) == found.number("polynomial", line | {"power": 1.0})
    assert found.number("linear", line) != found.number("polynomial", line | {"power": 2.0})
    assert found.number("manual", {"scale": 1.0}) != found.number("linear", line)


def test_other_rates_of_a_group_are_another_schedule() -> None:
    found = traces({"groups.head": [0.1, 10.0]})
    numbers = {found.number("cyclic", SMITH | {"groups.head": each}) for each in (1.0, 2.0, 1.0)}
    assert len(numbers) == 2


def test_no_two_of_the_first_settings_are_one_schedule() -> None:
    modes = [params["mode"] for params in traces().seed_points("cyclic").values()]
    assert modes == ["triangular", "exp_range"]
    longer = traces({"manual": [[16, 0.1]]}, epochs=16)
    modes = [params["mode"] for params in longer.seed_points("cyclic").values()]
    assert modes == ["triangular", "triangular2", "exp_range"]


def test_a_function_of_the_users_is_not_called() -> None:
    found = traces({"manual": "mine.py:rate"})
    assert found.number("manual", {"scale": 1.0}) == found.number("manual", {"scale": 1.0})
    assert found.number("manual", {"scale": 1.0}) != found.number("manual", {"scale": 2.0})


def test_of_trials_with_equal_traces_the_first_is_kept() -> None:
    records = [
        make_record(0.1, number=7, params=SMITH),
        make_record(0.2, number=3, params=SMITH | {"max_lr": 0.2}),
        make_record(0.1, number=5, params=SMITH | {"mode": "triangular2"}),
    ]
    assert [each.number for each in one_each(records, traces().of)] == [7, 3]
