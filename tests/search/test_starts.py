"""Few starts for schedules that hold their rate."""

from __future__ import annotations

import numpy as np
import pytest
from facts import make_facts
from records import make_record

from clrsearch.errors import PlanError
from clrsearch.search import build_space, load_plan
from clrsearch.search.plan import FIRST_SEED
from clrsearch.search.posteriors import Searched
from clrsearch.search.proposing import propose
from clrsearch.search.starts import known_starts, may_open, start_of, with_start
from clrsearch.search.trace_features import Points
from clrsearch.search.traces import Traces

WSD = {"lr": 0.1, "decay_share": 0.2, "shape": "linear", "min_ratio": 0.0, "warmup_share": 0.05}


def begun(*rates: float, seed_index: int = 0, family: str = "wsd") -> list:
    return [
        make_record(family=family, params={**WSD, "lr": rate}, seed_index=seed_index, number=number)
        for number, rate in enumerate(rates)
    ]


def test_a_start_is_the_rate_the_warm_up_and_the_factors_of_groups() -> None:
    with_head = {**WSD, "groups.head": 3.0}
    assert start_of("wsd", with_head) == {"lr": 0.1, "warmup_share": 0.05, "groups.head": 3.0}
    assert start_of("constant", {"lr": 0.1}) == {"lr": 0.1, "warmup_share": 0.0}
    assert start_of("cosine", WSD) is None


def test_each_seed_has_starts_of_its_own() -> None:
    records = [*begun(0.1, 0.2, 0.1), *begun(0.3, seed_index=FIRST_SEED + 1)]
    assert [each["lr"] for each in known_starts(records, 0)] == [0.1, 0.2]
    assert [each["lr"] for each in known_starts(records, FIRST_SEED + 1)] == [0.3]


@pytest.mark.parametrize(
    ("rates", "opens"),
    [
        ([], True),  # the first of three
        ([0.1] * 4, False),
        ([0.1] * 5, True),  # the second is due after a third of the first half of 30
        ([0.1] * 5 + [0.2], False),
        ([0.1] * 5 + [0.2] * 5, True),
        ([0.1] * 5 + [0.2] * 5 + [0.3], False),
        ([0.1] * 5 + [0.2] * 5 + [0.3] * 20, False),
    ],
)
def test_starts_are_opened_one_by_one_in_the_first_half(rates, opens) -> None:
    plan = load_plan(None, {"trunks": 6, "seeds": 2, "trials": 60, "families": ["wsd"]})
    assert may_open(plan, begun(*rates), 0) is opens


def test_seeds_share_the_starts_as_equally_as_they_can() -> None:
    plan = load_plan(None, {"trunks": 5, "seeds": 2, "trials": 10, "families": ["wsd"]})
    first = begun(0.1, 0.2)
    second = begun(0.1, 0.2, seed_index=FIRST_SEED + 1)
    assert may_open(plan, first, 0)  # three of five
    assert not may_open(plan, second, FIRST_SEED + 1)  # two of five


def test_a_schedule_gets_a_known_start() -> None:
    spaces = build_space(load_plan(None), make_facts()).families
    known = [{"lr": 0.3, "warmup_share": 0.1}]

    def given(family, params, known):
        return with_start(family, params, known, spaces[family], np.random.default_rng(0))

    assert given("wsd", WSD, known) == {**WSD, "lr": 0.3, "warmup_share": 0.1}
    assert given("cosine", WSD, known) == WSD
    assert given("wsd", WSD, []) == WSD
    assert given("constant", {"lr": 0.1}, known) == {"lr": 0.1}
    flat = [*known, {"lr": 0.2, "warmup_share": 0.0}]
    assert given("constant", {"lr": 0.1}, flat) == {"lr": 0.2}


def test_a_start_outside_a_familys_bounds_is_none_of_its() -> None:
    bounds = {"bounds.constant.lr": 0.01, "bounds.step.lr": [0.001, 0.05]}
    spaces = build_space(load_plan(None, bounds), make_facts()).families
    known = [{"lr": 0.7, "warmup_share": 0.0}, {"lr": 0.04, "warmup_share": 0.0}]
    generator = np.random.default_rng(0)
    for _ in range(10):
        fixed = with_start("constant", {"lr": 0.01}, known, spaces["constant"], generator)
        assert fixed == {"lr": 0.01}
        params = {"lr": 0.01, "drops": 1, "gamma": 0.1, "warmup_share": 0.0}
        assert with_start("step", params, known, spaces["step"], generator)["lr"] == 0.04


def test_a_study_has_no_more_starts_than_it_asks_for() -> None:
    plan = load_plan(None, {"trunks": 3, "seeds": 1, "trials": 40, "families": ["wsd", "step"]})
    space = build_space(plan, make_facts())
    about = Searched(
        plan=plan,
        space=space,
        traces=Traces(space, make_facts()),
        points=Points(space),
        direction="minimize",
    )
    records: list = []
    for number in range(40):
        label = ("wsd", "step")[number % 2]
        found = propose(label, number // 2, records, about, seed=number)
        value = abs(np.log(float(found.params["lr"]) / 0.1))
        given = {"family": found.family, "params": found.params, "number": number}
        records.append(make_record(value, **given))
    assert len(known_starts(records, 0)) == 3
    assert len({about.traces.of(record) for record in records}) == 40


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trunks": 6, "sampler": "tpe"}, "trunks: needs sampler=surrogate, not sampler=tpe"),
        (
            {"trunks": 3},
            "trunks: must be at least 4, one for each of the seeds, not 3; set seeds to fewer",
        ),
        (
            {"trunks": 6, "families": ["cosine"]},
            "trunks: none of the families holds its rate, as step, multistep, wsd do",
        ),
        ({"trunks": 0}, "trunks: input should be greater than or equal to 1, not 0"),
    ],
)
def test_a_plan_that_cannot_have_so_few_is_refused(changes, says) -> None:
    with pytest.raises(PlanError) as refused:
        load_plan(None, changes)
    assert str(refused.value) == says
