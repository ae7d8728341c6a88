"""What is copied of an earlier study, and what becomes of it in a new one."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from facts import make_facts, make_two_groups
from records import make_record
from scipy import stats

from clrsearch.schedules import FAMILIES, Manual
from clrsearch.search import build_space, load_plan
from clrsearch.search.study_record import StudyRecord
from clrsearch.search.trace_features import Points
from clrsearch.search.warm_start import (
    PIECE,
    EarlierRun,
    EarlierStudy,
    WarmStart,
    best_and_a_spread,
    packed,
    remembered,
    translated,
    unpacked,
)

ONECYCLE = {
    "max_lr": 0.5,
    "pct_start": 0.3,
    "div_factor": 25.0,
    "final_div_factor": 1e4,
    "anneal_strategy": "cos",
    "cycle_momentum": True,
    "base_momentum": 0.8,
    "max_momentum": 0.95,
}


def study(facts=None, **changes) -> StudyRecord:
    return StudyRecord(
        id=1,
        name="old",
        uuid=uuid.UUID(int=7),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        versions={},
        plan=load_plan(None, changes),
        facts=facts or make_facts(),
    )


def earlier(*finalists, runs=(), **changes) -> EarlierStudy:
    found = remembered(study(), [], [], [])
    return found.model_copy(update={"finalists": finalists, "runs": tuple(runs), **changes})


def test_what_is_copied() -> None:
    records = [
        make_record(3.0, 2.0, number=0, params={"max_lr": 0.1}, seed_index=500_001),
        make_record(9.0, number=1, state="pruned", params={"max_lr": 0.2}),
        make_record(9.0, number=2, state="pruned", diverged=True, params={"max_lr": 0.3}),
        make_record(1.0, number=3, family="manual"),
        make_record(5.0, number=4, state="running"),
        make_record(5.0, number=5, state="failed"),
    ]
    runs = [
        make_record(2.5, number=0, finalist=0, seed_index=1),
        make_record(0.5, number=1, finalist=3, seed_index=1),
    ]
    facts = make_facts(epochs=10, base_lr=0.3, direction="maximize")
    found = remembered(study(facts), [records[3], records[0]], records, runs)
    assert found.model_dump(exclude={"runs", "uuid"}) == {
        "name": "old",
        "direction": "maximize",
        "epochs": 10,
        "steps_per_epoch": 40.0,
        "base_lr": 0.3,
        "momentum": "momentum",
        "stepsize": "whole-cycles",
        "finalists": (("cyclic", {"max_lr": 0.1}),),
    }
    assert found.runs == (
        ("cyclic", {"max_lr": 0.1}, 500_001, 2.0),
        ("cyclic", {"max_lr": 0.3}, 0, None),
        ("cyclic", {"max_lr": 0.1}, 1, 2.5),
    )


@pytest.mark.parametrize(
    ("direction", "kept"),
    [("minimize", [0.0, 1.0, 2.0, 6.0, None]), ("maximize", [3.0, 7.0, 8.0, 9.0, None])],
)
def test_of_many_runs_the_best_and_a_spread_are_kept(direction, kept) -> None:
    scores = [None, *map(float, range(10))]
    runs = [EarlierRun("constant", {"lr": 0.1}, 0, score) for score in scores]
    found = best_and_a_spread(runs, direction, 5)
    assert sorted((each.score for each in found), key=str) == sorted(kept, key=str)
    assert found == [each for each in runs if each in found]
    assert best_and_a_spread(runs, direction, 11) == runs


def test_studies_share_the_room_for_runs() -> None:
    records = [make_record(float(number), number=number) for number in range(500)]
    assert len(remembered(study(), [], records, []).runs) == 200
    assert len(remembered(study(), [], records, [], among=4).runs) == 100


def test_pieces_fit_into_a_column_of_64_kb_and_are_put_together_again() -> None:
    params = {**ONECYCLE, "groups.köpfe": 1 / 3, "drops": 3}
    runs = [EarlierRun("onecycle", params, 500_003, score / 3) for score in range(200)]
    one, other = earlier(("onecycle", params), runs=runs), earlier(name="another")
    pieces = packed([one, other])
    assert len(pieces) > 1
    assert all(len(json.dumps(each)) < 60_000 and len(each) <= PIECE for each in pieces)
    found = unpacked(pieces)
    assert found == (one, other)
    assert found[0].runs[3].params["cycle_momentum"] is True
    assert type(found[0].runs[3].params["drops"]) is int
    with pytest.raises(ValueError, match="JSON"):
        unpacked(pieces[:1])


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != Manual.family])
def test_a_schedule_keeps_its_shares_and_its_rates_by_the_tasks_own(family) -> None:
    """Three times the rate and two and a half times the length, as curves say."""
    old = build_space(load_plan(None, {"families": [family]}), make_facts(steps_per_epoch=400))
    new = build_space(
        load_plan(None, {"families": [family]}),
        make_facts(epochs=50, steps_per_epoch=800, base_lr=0.15),
    )
    setting = old.setting
    for params in old.seed_points(family):
        study = earlier(base_lr=setting.base_lr)
        _, found = translated((family, params), study, new)
        steps = np.floor(np.linspace(0, 0.999, 40) * setting.horizon)
        rates, momenta = old.build(family, params).at(steps)
        again, and_momenta = new.build(family, found).at(5 * steps)
        assert again == pytest.approx(3 * rates, abs=0.01 * rates.max())
        if momenta is not None:
            assert and_momenta == pytest.approx(momenta, rel=0.02)


def test_what_is_out_of_bounds_is_clipped_and_what_is_not_searched_is_left_out() -> None:
    narrow = {"families": ["cyclic"], "bounds.cyclic.max_lr": [0.01, 0.2]}
    space = build_space(load_plan(None, narrow), make_facts(epochs=8))
    params = {"mode": "triangular", "max_lr": 0.5, "base_ratio": 0.1, "cycles": 5}
    family, found = translated(("cyclic", params), earlier(), space)
    assert (family, found["max_lr"], found["cycles"]) == ("cyclic", 0.2, 2)
    assert found["cycle_momentum"] is False  # the earlier optimizer had none
    assert translated(("onecycle", ONECYCLE), earlier(), space) is None


def test_stepsizes_become_cycles_and_cycles_stepsizes() -> None:
    whole = build_space(load_plan(None, {"families": ["cyclic"]}), make_facts())
    integers = build_space(
        load_plan(None, {"families": ["cyclic"], "stepsize": "integers"}), make_facts(epochs=40)
    )
    params = {"mode": "triangular", "max_lr": 0.1, "base_ratio": 0.1}
    _, found = translated(("cyclic", {**params, "stepsize": 5}), earlier(), whole)
    assert found["cycles"] == 2
    _, found = translated(("cyclic", {**params, "stepsize": 3}), earlier(), integers)
    assert found["stepsize"] == 6
    _, found = translated(("cyclic", {**params, "cycles": 4}), earlier(), integers)
    assert found["stepsize"] == 5


def test_a_groups_factor_is_the_tasks_own_where_it_was_not_searched() -> None:
    plan = load_plan(None, {"families": ["constant", "linear"], "groups.head": [0.1, 10.0]})
    space = build_space(plan, make_two_groups())
    assert translated(("constant", {"lr": 0.1}), earlier(), space) == (
        "constant",
        {"lr": 0.1, "groups.head": 1.0},
    )
    given = {"lr": 0.1, "groups.head": 3.0}
    assert translated(("constant", given), earlier(), space) == ("constant", given)


def test_the_finalists_of_several_studies_take_turns() -> None:
    space = build_space(load_plan(None, {"families": ["constant"]}), make_facts())
    one = earlier(*(("constant", {"lr": lr}) for lr in (0.1, 0.2, 0.3)))
    other = earlier(("onecycle", ONECYCLE), ("constant", {"lr": 0.4}), name="another")
    warm = WarmStart([one, other], space)
    assert [params["lr"] for _, params in warm.finalists] == [0.1, 0.4, 0.2, 0.3]
    assert warm.left_out == [
        "like another: left out its finalists of families that are not searched here: onecycle"
    ]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_an_earlier_surrogate_ranks_schedules_by_rates_relative_to_the_tasks_own(direction) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    rates = np.geomspace(0.02, 2.0, 30)
    old = [
        EarlierRun("constant", {"lr": float(lr)}, 0, sign * abs(np.log(lr / 0.2))) for lr in rates
    ]
    found = earlier(runs=[*old, EarlierRun("constant", {"lr": 9.0}, 0, None)], base_lr=0.5)
    space = build_space(load_plan(None), make_facts(epochs=6, base_lr=0.05))
    told = found.model_copy(update={"direction": direction})
    (surrogate,) = WarmStart([told], space).surrogates
    points = Points(space).of([("constant", {"lr": float(lr)}) for lr in rates / 10])
    means = surrogate.mean(points)
    assert abs(np.log(rates[means.argmin()] / 0.2)) < 0.2
    assert stats.spearmanr(means, np.abs(np.log(rates / 0.2)))[0] > 0.95


def test_a_study_of_too_few_runs_has_no_surrogate() -> None:
    space = build_space(load_plan(None), make_facts())
    few = earlier(runs=[EarlierRun("constant", {"lr": 0.1}, 0, 1.0)] * 2)
    assert WarmStart([few], space).surrogates == ()
