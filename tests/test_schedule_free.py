"""A study with Schedule-Free from end to end, and what is refused before it is stored."""

from __future__ import annotations

import sys

import pytest

import clrsearch
from clrsearch import service
from clrsearch.errors import ClrsearchError, PlanError, ScheduleError
from clrsearch.search import Study, load_plan
from clrsearch.storage import StorageUrl, has_studies, open_database
from clrsearch.worker import WorkerSettings


@pytest.fixture
def url(tmp_path):
    return StorageUrl(f"sqlite:///{tmp_path}/studies.db")


def plan(**changes):
    usual = {"task": "tiny.py:Noisy", "trials": 6, "baseline": "schedule_free", "seeds": 1}
    return load_plan(None, {**usual, "families": ["linear"], "confirm.seeds": 3, **changes})


def settings(task_dir, **changes) -> WorkerSettings:
    return WorkerSettings(task_dir=task_dir, device="cpu", **changes)


def test_it_is_searched_confirmed_replayed_and_printed(url, task_dir, tmp_path) -> None:
    result = service.run(
        plan(**{"bounds.linear.lr": 1e-7}),  # which trains nothing
        name="mine",
        storage=url,
        workers=0,
        settings=settings(task_dir),
    )
    now = result.snapshot
    free = [each for each in now.records if each.family == "schedule_free"]
    assert free
    assert all(each.state == "complete" for each in free)
    assert now.recommended.family == "schedule_free"
    replayed = service.replay("mine", now.recommended.number, storage=url, task_dir=task_dir)
    assert replayed.matches
    found = service.best("mine", storage=url)
    assert "return SGDScheduleFree(groups, momentum=0.9" in found.code
    with pytest.raises(PlanError, match="has no scheduler: use make_optimizer"):
        found.make_scheduler(None, 4)
    longer = service.best("mine", epochs=8, storage=url)
    assert longer.schedule.warmup == 2 * found.schedule.warmup
    page = tmp_path / "page.html"
    service.report("mine", page, storage=url)
    assert "no schedule here" in page.read_text()


def test_it_is_not_searched_unless_it_is_named(url, task_dir) -> None:
    assert "schedule_free" not in load_plan(None, {}).searched
    compared = service.comparison(load_plan(None, {"task": "tiny.py:Tiny"}), task_dir=task_dir)
    assert "schedule_free" not in compared.plan.families
    named = load_plan(None, {"task": "tiny.py:Tiny", "baseline": "schedule_free"})
    compared = service.comparison(named, task_dir=task_dir)
    assert {"schedule_free", "constant", "cosine"} <= set(compared.plan.families)


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({"task": "loops.py:train", "epochs": 4}, {}, "a custom training loop makes itself"),
        ({}, {"lanes": 2}, "--lanes 2: .* as schedule_free trains with an optimizer"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_stored(changes, more, said, url, task_dir) -> None:
    if "epochs" in changes:
        changes |= {"metric": "error", "direction": "minimize"}
    with pytest.raises(ClrsearchError, match=said):
        service.run(
            plan(**changes),
            name="mine",
            storage=url,
            workers=0,
            settings=settings(task_dir, **more),
        )
    assert not has_studies(url)


def test_without_the_package_it_is_refused_and_the_command_named(
    url, task_dir, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ScheduleError, match=r"pip install 'clrsearch\[schedule-free\]'"):
        service.run(plan(), name="mine", storage=url, workers=0, settings=settings(task_dir))
    assert not has_studies(url)


def test_what_an_earlier_study_says_of_it_is_left_out_where_it_is_not_searched(
    url, task_dir
) -> None:
    how = {"storage": url, "workers": 0, "settings": settings(task_dir)}
    service.run(plan(**{"confirm.enabled": False}), name="old", **how)
    new = plan(like="old", baseline="constant", trials=4, **{"confirm.enabled": False})
    service.run(new, name="new", **how)
    both = plan(like="old", trials=4, **{"confirm.enabled": False})
    service.run(both, name="both", **how)
    with open_database(url) as database:
        assert "schedule_free" in {
            each.family for each in Study.open(database, "both").history.records()
        }
    assert clrsearch.ScheduleFree.family == "schedule_free"
