"""What a slot's trial is to be."""

from __future__ import annotations

import math
import uuid

import numpy as np
import pytest
from facts import make_facts
from records import make_record

from clrsearch.search import build_space, load_plan
from clrsearch.search.candidates import draw
from clrsearch.search.plan import ANY
from clrsearch.search.posteriors import Searched, alike, beliefs, posterior
from clrsearch.search.proposing import propose
from clrsearch.search.trace_features import Points
from clrsearch.search.traces import Traces
from clrsearch.search.warm_start import EarlierRun, EarlierStudy, WarmStart

FACTS = make_facts()


def searched(direction="minimize", **changes) -> Searched:
    plan = load_plan(None, changes)
    space = build_space(plan, FACTS)
    return Searched(
        plan=plan,
        space=space,
        traces=Traces(space, FACTS),
        points=Points(space),
        direction=direction,
    )


def loss(about: Searched, family, params) -> float:
    """The lower the nearer to a rate of 0.2 that falls to a hundredth of it in the end."""
    logs = np.log(about.space.build(family, params).at(np.arange(800.0))[0] + 1e-9)
    start, end = logs[100:400].mean(), logs[-20:].mean()
    return (start - math.log(0.2)) ** 2 + 0.1 * (end - math.log(0.002)) ** 2


def trials(about: Searched, count: int, **changes) -> list:
    generator = np.random.default_rng(5)
    found = []
    for number in range(count):
        family = about.plan.searched[number % len(about.plan.searched)]
        params = draw(about.space.families[family], generator)
        value = loss(about, family, params)
        sign = 1.0 if about.direction == "minimize" else -1.0
        given = {"family": family, "params": params, "seed_index": number % 4} | changes
        found.append(make_record(sign * value, number=number, **given))
    return found


def test_smiths_settings_come_first_and_once() -> None:
    about = searched()
    found = [propose("cyclic", rank, [], about, seed=rank) for rank in range(3)]
    assert [each.params["mode"] for each in found] == ["triangular", "triangular2", "exp_range"]
    taken = [make_record(1.0, family="cyclic", params=found[0].params)]
    assert propose("cyclic", 0, taken, about, seed=0).params not in [each.params for each in found]


def test_before_enough_is_told_any_family_is_drawn() -> None:
    about = searched()
    others = [each for each in about.plan.families if each != "cyclic"]
    found = [propose(ANY, rank, trials(about, 5), about, seed=rank) for rank in range(18)]
    assert [each.family for each in found] == others * 2
    assert not any(each.fallback for each in found)


def test_a_small_study_asks_the_surrogate_after_a_quarter() -> None:
    about = searched(trials=16)
    told = trials(about, 4)
    found = propose(ANY, 4, told, about, seed=1)
    chance = propose(ANY, 4, [], about, seed=1)
    assert found != chance
    assert propose(ANY, 4, told, searched(trials=17), seed=1) == chance


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_goes_where_schedules_are_good(direction) -> None:
    about = searched(direction)
    told = trials(about, 40)
    found = [propose(ANY, slot, told, about, seed=slot) for slot in range(40, 60)]
    proposed = [loss(about, each.family, each.params) for each in found]
    drawn = sorted(abs(each.value) for each in told)
    assert np.median(proposed) < drawn[7]  # the best fifth of what chance finds
    assert len({each.family for each in found}) > 2


@pytest.mark.parametrize("label", ["cyclic", "constant", "linear"])
def test_a_slot_for_one_family_gets_that_family(label) -> None:
    about = searched()
    told = trials(about, 40)
    found = [propose(label, 9, told, about, seed=seed) for seed in range(8)]
    assert {each.family for each in found} == {label}
    if label == "constant":  # what the others have shown of the rate helps it too
        assert 0.02 < np.median([each.params["lr"] for each in found]) < 0.5


def test_the_same_trials_give_the_same_proposal() -> None:
    about = searched()
    told = trials(about, 40)
    again = searched()
    assert propose(ANY, 9, told, about, seed=3) == propose(ANY, 9, told, again, seed=3)
    assert propose(ANY, 9, told, about, seed=4) != propose(ANY, 9, told, about, seed=3)


def test_nothing_is_tried_twice() -> None:
    about = searched()
    told = trials(about, 30)
    for slot in range(30, 50):
        found = propose(ANY, slot, told, about, seed=1)
        known = {about.traces.of(record) for record in told}
        assert about.traces.number(found.family, found.params) not in known
        given = {"family": found.family, "params": found.params, "state": "running"}
        told.append(make_record(number=slot, **given))


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"diverged": True, "state": "pruned"}, 20), ({"state": "pruned"}, 20)],
)
def test_where_no_surface_can_be_fitted_it_is_left_to_chance(changes, count) -> None:
    about = searched()
    found = propose(ANY, 20, trials(about, count, **changes), about, seed=1)
    assert found.family in about.plan.families
    assert found.fallback == "fewer than 3 trials are complete"


def test_a_singular_surface_is_left_to_chance(monkeypatch) -> None:
    about = searched()
    told = trials(about, 20)
    lost = np.full((len(told), 19), np.nan)
    monkeypatch.setattr(about.points, "of_records", lambda records: lost[: len(records)])
    found = propose(ANY, 20, told, about, seed=1)
    assert "singular" in found.fallback


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_optunas_samplers_by_name(sampler) -> None:
    about = searched(sampler=sampler, families=["linear", "cyclic"])
    told = trials(about, 14)
    for label in ("linear", "cyclic"):
        found = propose(label, 9, told, about, seed=3)
        assert found == propose(label, 9, told, about, seed=3)
        assert about.space.build(found.family, found.params).family == label


def test_fresh_runs_are_told_to_the_surrogate_too() -> None:
    about = searched()
    told = trials(about, 30)
    best = min(told, key=lambda record: record.value)
    runs = [
        make_record(5.0 + best.value, number=seed, finalist=best.number, seed_index=seed)
        for seed in range(1, 9)
    ]
    point = about.points.of_records([best])
    before = posterior(told, (), about).mean(point)[0]
    after = posterior(told, runs, about).mean(point)[0]
    assert after > before + 1.0  # it was lucky in the search


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_luckiest_trial_is_not_believed(direction) -> None:
    about = searched(direction)
    told = trials(about, 40)
    noise = 0.5 * np.random.default_rng(6).standard_normal(40)
    sign = 1.0 if direction == "minimize" else -1.0
    noisy = [
        make_record(each.value + shift, number=each.number, family=each.family, params=each.params)
        for each, shift in zip(told, noise, strict=True)
    ]
    found = beliefs(noisy, (), about)
    truth = [sign * each.value for each in told]
    chosen = min(found, key=lambda number: sign * found[number].mean)
    luckiest = min(noisy, key=lambda each: sign * each.value).number
    assert truth[chosen] <= truth[luckiest]
    good = sorted(told, key=lambda each: sign * each.value)[:10]
    errors = [abs(found[each.number].mean - each.value) for each in good]
    assert np.mean(errors) < np.mean([abs(noise[each.number]) for each in good])
    assert all(0 < found[each.number].deviation < 5 for each in told)


def test_of_too_few_trials_nothing_is_believed() -> None:
    about = searched()
    assert beliefs(trials(about, 2), (), about) == {}


def test_what_ends_a_little_lower_is_alike_and_what_is_twice_as_high_is_not() -> None:
    about = searched()
    values = {"max_lr": 0.1, "pct_start": 0.3, "div_factor": 25.0, "anneal_strategy": "cos"}
    values |= {"final_div_factor": 1e4, "cycle_momentum": False}
    changes = [{}, {"final_div_factor": 3e4}, {"max_lr": 0.2}, {"pct_start": 0.5}]
    one, lower, higher, later = (
        make_record(1.0, number=number, family="onecycle", params=values | change)
        for number, change in enumerate(changes)
    )
    assert alike(one, lower, about)
    assert not alike(one, higher, about)
    assert not alike(one, later, about)


def test_a_function_of_the_users_is_neither_called_nor_waited_for() -> None:
    about = searched(families=["manual", "linear"], manual="mine.py:rate")
    told = trials(searched(families=["linear"]), 20)
    by_hand = [
        make_record(0.1 * scale, number=20 + scale, family="manual", params={"scale": float(scale)})
        for scale in range(1, 4)
    ]
    found = propose("manual", 9, [*told, *by_hand], about, seed=1)
    assert (found.family, list(found.params)) == ("manual", ["scale"])
    assert found == propose("manual", 9, [*told, *by_hand], about, seed=1)
    assert propose("linear", 9, [*told, *by_hand], about, seed=1).family == "linear"
    assert beliefs([*told, *by_hand], (), about).keys() == {each.number for each in told}
    assert not alike(*by_hand[:2], about)


def warm_start(about: Searched, **finalists) -> WarmStart:
    """A start from a study of the same task, but with ten times the rate of its own."""
    old = make_facts(base_lr=0.5)
    before = searched()
    generator = np.random.default_rng(8)
    schedules = []
    for number in range(60):
        family = before.plan.searched[number % 11]
        schedules.append((family, draw(before.space.families[family], generator)))
    runs = [
        EarlierRun(family, scaled(params, 10), number % 4, 50 * loss(before, family, params))
        for number, (family, params) in enumerate(schedules)
    ]
    study = EarlierStudy(
        name="old",
        uuid=uuid.UUID(int=1),
        direction="minimize",
        epochs=old.epochs,
        steps_per_epoch=old.steps_per_epoch,
        base_lr=old.base_lr,
        momentum="momentum",
        stepsize="whole-cycles",
        finalists=tuple(finalists.items()),
        runs=tuple(runs),
    )
    return WarmStart([study], about.space)


def scaled(params, factor):
    return {
        name: factor * value if name in ("lr", "max_lr") else value
        for name, value in params.items()
    }


def test_finalists_of_earlier_studies_come_first_where_they_fit() -> None:
    about = searched(like="old")
    linear, constant = {"lr": 3.0, "warmup_share": 0.1}, {"lr": 0.4}
    warm = warm_start(about, linear=linear, constant=constant)
    found = propose(ANY, 0, [], about, seed=0, warm=warm)
    assert (found.family, found.params) == (
        "linear",
        {"lr": pytest.approx(0.3), "warmup_share": 0.1},
    )
    taken = [make_record(1.0, family="linear", params=found.params, state="running")]
    found = propose(ANY, 1, taken, about, seed=0, warm=warm)
    assert found.params != taken[0].params
    found = propose("constant", 0, taken, about, seed=0, warm=warm)
    assert found.params == {"lr": pytest.approx(0.04)}


def test_earlier_runs_propose_before_anything_is_told() -> None:
    about = searched(like="old")
    warm = warm_start(about)
    found = [propose(ANY, 0, [], about, seed=seed, warm=warm) for seed in range(20)]
    assert not any(each.fallback for each in found)
    proposed = [loss(about, each.family, each.params) for each in found]
    chance = [loss(about, each.family, each.params) for each in trials(about, 40)]
    assert np.median(proposed) < np.quantile(chance, 0.2)
    others = [propose(ANY, rank, [], about, seed=rank, warm=warm) for rank in range(1, 20, 2)]
    assert others == [propose(ANY, rank, [], about, seed=rank) for rank in range(1, 20, 2)]
    smiths = propose("cyclic", 0, [], about, seed=1, warm=warm)
    assert smiths == propose("cyclic", 0, [], about, seed=1)
    told = trials(about, 6)
    again = warm_start(searched(like="old"))
    assert propose(ANY, 6, told, about, seed=3, warm=warm) == propose(
        ANY, 6, told, about, seed=3, warm=again
    )
