"""The runs that measure several lengths."""

from __future__ import annotations

import numpy as np
import pytest
from facts import make_facts

from clrsearch.schedules import trace
from clrsearch.search import HorizonPlan, StudyPlan, build_space, held_until, runs_of
from clrsearch.search.horizon_runs import planned
from clrsearch.search.plan import FIRST_SEED
from clrsearch.search.prefixes import parting_intervals

FACTS = make_facts(epochs=40, steps_per_epoch=10, base_lr=0.02)
PLAN = HorizonPlan(epochs=(5, 10, 20, 40), rates=(0.1, 0.3), seeds=2)


def space_of(plan, facts=FACTS):
    return build_space(
        StudyPlan(families=("wsd",), baseline="wsd", horizon=plan, epochs=facts.epochs), facts
    )


def test_the_longest_with_the_latest_decay_come_first_seed_by_seed() -> None:
    runs = planned(PLAN, FACTS)
    assert len(runs) == runs_of(PLAN) == 2 * 2 * 4 * 2
    order = [(run.params["lr"], run.params["shape"], run.params["epochs"]) for run in runs[:16]]
    assert order[:2] == [(0.1, "1-sqrt", 40), (0.3, "1-sqrt", 40)]
    assert order[2:4] == [(0.1, "1-sqrt", 5), (0.1, "linear", 5)]
    assert order[-2:] == [(0.1, "linear", 40), (0.3, "linear", 40)]
    assert [run.seed_index for run in runs] == [0] * 16 + [FIRST_SEED + 1] * 16
    more = planned(PLAN.model_copy(update={"seeds": 3}), FACTS)
    assert more[:32] == runs  # so slots that are there keep their runs


def test_decays_begin_at_the_end_of_an_epoch_after_one_warm_up() -> None:
    space = space_of(PLAN)
    for run in planned(PLAN, FACTS):
        epochs = run.params["epochs"]
        schedule = space.build("wsd", run.params)
        share = {"1-sqrt": 0.2, "linear": 0.4}[run.params["shape"]]
        assert schedule.decay == round(share * epochs) * 10
        assert schedule.horizon == epochs * 10
        assert schedule.warmup == 10  # a fifth of the shortest run
        assert held_until(run.params, FACTS) == epochs - round(share * epochs)
        rates = schedule.at(np.arange(401.0))[0]
        assert rates[10] == rates[(epochs - round(share * epochs)) * 10] == run.params["lr"]
        assert rates[epochs * 10] == 0.0


def test_all_lengths_together_cost_less_than_twice_the_longest() -> None:
    space = space_of(PLAN)
    runs = [run for run in planned(PLAN, FACTS)[:16] if run.params["lr"] == 0.1]
    traces = [trace(space.build("wsd", run.params), 400) for run in runs]
    known: set[bytes] = set()
    for run, played in zip(runs, traces, strict=True):
        ends = FACTS.ends[: run.params["epochs"]]
        assert parting_intervals(played, traces, ends)  # somebody goes on from each
        known |= {played.rates[:, :end].tobytes() for end in ends}
    assert len(known) == 32 + (1 + 2 + 4 + 8) + (2 + 4 + 8 + 16)  # of 150 epochs


def test_a_single_epoch_is_all_decay_behind_its_warm_up() -> None:
    plan = HorizonPlan(epochs=(1, 2))
    facts = make_facts(epochs=2, steps_per_epoch=10, base_lr=0.02)
    first = next(run for run in planned(plan, facts) if run.params["epochs"] == 1)
    schedule = space_of(plan, facts).build("wsd", first.params)
    assert (schedule.warmup, schedule.decay, schedule.horizon) == (1, 9, 10)


def test_rates_are_by_default_those_near_the_tasks_own() -> None:
    runs = planned(HorizonPlan(epochs=(5, 10)), FACTS)
    assert sorted({run.params["lr"] for run in runs}) == pytest.approx([0.02, 0.06, 0.2])
    assert len(runs) == 3 * 3 * 2 * 2


def test_epochs_that_differ_in_length() -> None:
    facts = make_facts(epochs=4, steps_per_epoch=3.5)
    plan = HorizonPlan(epochs=(2, 4))
    space = space_of(plan, facts)
    for run in planned(plan, facts):
        schedule = space.build("wsd", run.params)
        begin = schedule.horizon - schedule.decay
        assert begin in (0, *facts.ends) and schedule.horizon == run.params["epochs"] * 3.5
