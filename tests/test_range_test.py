"""Range tests from the command line's side: kept with a study, used by a search, at no slot."""

from __future__ import annotations

import pytest
import torch

from clrsearch import service
from clrsearch.errors import PlanMismatch, StudyError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.worker import WorkerSettings

TINY = StudyPlan(
    families=("cyclic",), task="tiny.py:Tiny", trials=6, confirm=ConfirmPlan(enabled=False)
)
TESTED = TINY.model_copy(update={"range_test": True})


def run(plan, task_dir, **keys):
    return service.run(
        plan,
        name="mine",
        workers=0,
        settings=WorkerSettings(device="cpu", task_dir=task_dir),
        **keys,
    )


def test_a_search_is_bounded_by_its_range_test_which_costs_no_slot(any_url, task_dir) -> None:
    told = []
    plan = TESTED.model_copy(update={"families": ("cyclic", "cosine"), "trials": 13})
    now = run(plan, task_dir, on_range_test=told.append).snapshot
    assert now.total == now.done == 13
    begun, test = told
    assert begun is None
    assert test == service.range_test(TINY, task_dir=task_dir, device="cpu").test
    assert 2e-5 < test.base < 1e-3 and 0.05 < test.maximum < 1
    rates = [r.params["max_lr" if r.family == "cyclic" else "lr"] for r in now.records]
    assert all(test.base <= rate <= test.maximum for rate in rates)
    with open_database(any_url) as database:
        study = Study.open(database, "mine")
        assert study.range_test == test
        assert study.space.families["cosine"]["lr"].domain.low == test.base

    again = run(plan, task_dir, on_range_test=told.append)
    assert again.began_finished and len(told) == 2
    with pytest.raises(PlanMismatch, match="range_test is True there and False here"):
        run(plan.model_copy(update={"range_test": False}), task_dir)


def test_a_flat_range_test_leaves_the_bounds_as_they_are(url, task_dir) -> None:
    plan = TESTED.model_copy(update={"task": "tiny.py:Deaf", "trials": 2})
    told = []
    run(plan, task_dir, on_range_test=told.append)
    assert told[1].base is None
    with open_database(url) as database:
        domain = Study.open(database, "mine").space.families["cyclic"]["max_lr"].domain
    assert (domain.low, domain.high) == (0.02 / 30, 0.02 * 30)


def test_the_confirmation_is_within_the_same_bounds(url, task_dir) -> None:
    plan = TESTED.model_copy(update={"confirm": ConfirmPlan(top=1, seeds=2)})
    confirmed = run(plan, task_dir).snapshot.confirmed
    assert confirmed.left == 0
    with open_database(url) as database:
        study = Study.open(database, "mine")
        spaces = [each.space.families["cyclic"]["max_lr"].domain for each in study.stages()]
    assert len(spaces) == 2
    assert spaces[0] == spaces[1]
    assert spaces[0].low != pytest.approx(0.02 / 30)


def test_for_a_plan_nothing_is_stored(url, task_dir) -> None:
    found = service.range_test(TINY, task_dir=task_dir, device="cpu")
    assert found.study is None
    assert not url.file.exists()


def test_a_study_keeps_its_range_test_and_the_dashboard_gets_the_plot(url, task_dir) -> None:
    run(TINY, task_dir)
    with pytest.raises(StudyError, match="mine has no range test: clrsearch range-test mine"):
        service.picture("mine", "range-test")
    state = torch.get_rng_state()
    found = service.range_test("mine", task_dir=task_dir, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert found.study == "mine"
    assert service.range_test("mine", task_dir=task_dir / "nowhere").test == found.test
    assert service.picture("mine", "range-test").subtitle == found.test.sentence
    with open_database(url) as database:
        study = Study.open(database, "mine")
        domain = study.space.families["cyclic"]["max_lr"].domain
        attributes = database.optuna.get_study_system_attrs(
            database.optuna.get_study_id_from_name("mine")
        )
    assert (domain.low, domain.high) == (0.02 / 30, 0.02 * 30)
    assert any("range-test" in key for key in attributes)
    assert run(TINY.model_copy(update={"trials": 7}), task_dir).snapshot.done == 7


def test_a_study_that_is_not_there_is_told(url, task_dir) -> None:
    run(TINY, task_dir)
    with pytest.raises(StudyError, match="did you mean mine"):
        service.range_test("mines", task_dir=task_dir)


def test_bounds_of_the_plan_go_before_those_of_the_range_test(url, task_dir) -> None:
    plan = TESTED.model_copy(update={"bounds": {"cyclic": {"max_lr": (0.001, 0.002)}}})
    now = run(plan, task_dir).snapshot
    assert all(0.001 <= r.params["max_lr"] <= 0.002 for r in now.records if r.family == "cyclic")
