"""A study that starts from what an earlier one has found, from the command to the database."""

from __future__ import annotations

import pytest
from running import ALONE

from clrsearch import service
from clrsearch.errors import PlanError, PlanMismatch
from clrsearch.search import ConfirmPlan, Study, StudyPlan, beliefs, load_plan
from clrsearch.storage import Slot, open_database
from clrsearch.worker import WorkerSettings

OLD = {"trials": 8, "confirm": ConfirmPlan(top=2, seeds=2)}


def run(task_dir, name, notes=None, **keys):
    given = {"task": "tiny.py:Tiny", "trials": 8, "confirm": ALONE, "pruner": "none"} | keys
    return service.run(
        StudyPlan(**given),
        name=name,
        workers=0,
        settings=WorkerSettings(task_dir=task_dir, device="cpu"),
        on_note=(lambda text: None) if notes is None else notes.append,
    ).snapshot


def test_the_finalist_is_tried_first_and_the_earlier_study_is_needed_no_more(url, task_dir) -> None:
    old = run(task_dir, "old", **OLD)
    new = run(task_dir, "new", like="old", trials=6)
    tried = [(each.family, each.params) for each in new.records]
    assert tried[0] == (old.recommended.family, old.recommended.params)
    service.delete("old")
    grown = run(task_dir, "new", like="old", trials=9)
    assert [(each.family, each.params) for each in grown.records[:6]] == tried
    assert grown.done == 9
    assert run(task_dir, "new", trials=10).done == 10  # without naming it again
    with open_database(url) as database:
        study = Study.open(database, "new")
        records = study.history.records()
        labels = study.plan.labels(5)  # the baseline's slot was the last of six
        for record in records:
            slot = Slot(
                number=record.slot,
                family=labels[record.slot],
                worker="w",
                attempt=1,
                trial=None,
                losses=0,
                seed_index=record.seed_index,
            )
            proposal = study.propose(slot, records[: record.number])
            assert (proposal.family, proposal.params) == (record.family, record.params)


def test_what_is_believed_and_recommended_owes_nothing_to_earlier_runs(url, task_dir) -> None:
    run(task_dir, "old", **OLD)
    now = run(task_dir, "new", like="old", **OLD)
    with open_database(url) as database:
        study = Study.open(database, "new")
        cold = Study.create(database, "cold", StudyPlan(task="tiny.py:Tiny"), study.facts, {})
        runs = study.confirmation().history.records()
        alone = beliefs(study.history.records(), runs, cold.searched)
        assert study.warm_start.surrogates
        assert study.beliefs() == alone
    best = min(now.verdict.standings, key=lambda each: each.expected)
    assert best.expected == alone[best.trial].mean


def test_a_family_that_is_not_searched_is_named(url, task_dir) -> None:
    run(task_dir, "old", families=("step",), trials=4)
    notes = []
    now = run(task_dir, "new", notes, like=("old",), families=("linear",), trials=3)
    assert notes == [
        "like old: left out its finalists of families that are not searched here: step"
    ]
    assert now.done == 3


def test_another_earlier_study_is_another_plan(url, task_dir) -> None:
    run(task_dir, "old", trials=4)
    run(task_dir, "new", like="old", trials=3)
    with pytest.raises(PlanMismatch, match=r"like is \('old',\) there and \('other',\) here"):
        run(task_dir, "new", like="other", trials=3)


def test_what_cannot_be_started_from_is_named_before_anything_is_written(url, task_dir) -> None:
    with pytest.raises(PlanError, match="like: no study old: the database has none yet"):
        run(task_dir, "new", like="old")
    assert not url.file.exists()
    run(task_dir, "old", **OLD)
    for like, message in (
        ("odl", "like: no study odl; did you mean old?"),
        ("new", "like: new is this study itself: choose another name with --name"),
        ("old.confirm", "like: old.confirm is the confirmation of old: name that study"),
        (("old", "old"), "like: old is listed 2 times"),
    ):
        with pytest.raises(PlanError) as refused:
            run(task_dir, "new", like=like)
        assert str(refused.value) == message
    run(task_dir, "bad", task="tiny.py:Explodes", trials=2)
    with pytest.raises(PlanError, match="like: bad has no complete trial yet, so there is"):
        run(task_dir, "new", like="bad")


def test_another_metric_and_direction_are_no_obstacle(url, task_dir) -> None:
    run(task_dir, "old", **OLD)
    now = run(task_dir, "new", like="old", metric="close", direction="maximize", trials=5)
    assert now.done == 5 and now.metric == "close"


def test_the_command_has_an_option(url, task_dir, clrsearch, monkeypatch) -> None:
    monkeypatch.chdir(task_dir)
    run(task_dir, "old", trials=4)
    options = ["--task", "tiny.py:Tiny", "--trials", "3", "--no-confirm", "--workers", "0"]
    code, _, errors = clrsearch("run", "--name", "new", "--like", "old", *options)
    assert code == 0, errors
    code, out, errors = clrsearch("run", "--name", "third", "--like", "nwe", *options)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "like: no study nwe; did you mean new?" in errors
    now = service.show("new").snapshot
    assert now.records[0].params == service.show("old").snapshot.recommended.params


def test_a_study_that_starts_from_another_has_seeds_of_its_own(url, task_dir) -> None:
    """On OLD's seeds its finalists were chosen; a resume need not name the seed."""
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    how = {"task": "tiny.py:Tiny", "families": ["step"], "trials": 3, "confirm.enabled": False}
    service.run(load_plan(None, how), name="old", workers=0, settings=settings)
    asked = load_plan(None, {**how, "like": "old"})
    service.run(asked, name="new", workers=0, settings=settings)
    assert service.show("new").plan.seed == 1
    service.run(asked, name="new", workers=0, settings=settings)
    named = load_plan(None, {**how, "like": "old", "seed": 0})
    service.run(named, name="same", workers=0, settings=settings)
    assert service.show("same").plan.seed == 0
