"""A study's records: what has changed is read, in whatever order it appears."""

from __future__ import annotations

import optuna
import pytest
import sqlalchemy as sa
from facts import make_facts
from optuna.storages._rdb import models

from clrsearch.search import History, Study, StudyPlan
from clrsearch.search.study import CURVES
from clrsearch.storage import Trials, open_database

FACTS = make_facts(metric="error", batch_size=8, steps_per_epoch=4, base_lr=0.02)
WHO = {"worker": "one", "device": "cpu"}
PARAMS = {"lr": 0.1}


@pytest.fixture
def study(any_url):
    plan = StudyPlan(trials=8, families=("constant",))
    with open_database(any_url, create=True) as database:
        yield Study.create(database, "mine", plan, FACTS, {})


def begin(study, **attributes):
    return study.begin(study.slots.claim(f"w{id(attributes)}"), PARAMS, {**WHO, **attributes})


def other_look(study) -> History:
    """A history of another process, which has read nothing yet."""
    return History(Trials(study.database.engine, study.id, unread=CURVES), study.name)


def test_it_follows_what_happens_as_one_that_begins_anew_sees_it(study) -> None:
    trials = [begin(study), begin(study)]
    for epoch in range(1, 4):
        for trial in trials:
            study.log.report(trial, {epoch: trial + 1 / epoch})
        assert study.history.records() == other_look(study).records()
    study.log.complete(trials[0], 0.25, {"metrics": {"error": 0.25}, "seconds": 1.5})
    trials.append(begin(study))
    study.log.report(trials[2], {1: 0.5})
    study.log.prune(trials[1], {}, diverged=True)
    now = study.history.records()
    assert now == other_look(study).records()
    assert [record.end for record in now] == ["complete", "diverged", "running"]
    assert now[0].values == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert now[0].metrics == {"error": 0.25}
    assert now[0].ended is not None
    assert now[2].values == {1: 0.5}
    assert now[2].params == PARAMS


def test_a_value_that_appears_late_is_read_with_the_next(study) -> None:
    first, second = begin(study), begin(study)
    study.log.report(first, {1: 0.5})
    study.log.report(second, {1: 0.75})
    values = models.TrialIntermediateValueModel.__table__
    row = values.c.trial_intermediate_value_id
    with study.database.engine.begin() as connection:
        connection.execute(
            values.update()
            .where(values.c.trial_id == study.log._id(second))
            .values(trial_intermediate_value_id=row + 500)
        )
        top = connection.scalar(sa.select(sa.func.max(row)))
    assert study.history.records()[1].values == {1: 0.75}
    late = {  # its number was drawn before, its transaction has ended after
        "trial_intermediate_value_id": top - 1,
        "trial_id": study.log._id(first),
        "step": 2,
        "intermediate_value": 0.25,
        "intermediate_value_type": "FINITE",
    }
    with study.database.engine.begin() as connection:
        connection.execute(values.insert(), [late])
    assert study.history.records()[0].values == {1: 0.5, 2: 0.25}


def test_a_trial_that_ends_while_it_is_read_is_read_again(study, monkeypatch) -> None:
    trial = begin(study)
    study.log.report(trial, {1: 0.5})
    read = Trials._attributes

    def then_it_ends(self, ids, where):
        found = read(self, ids, where)
        study.log.complete(trial, 0.25, {"metrics": {"error": 0.25}, "seconds": 1.5})
        return found

    history = other_look(study)
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "_attributes", then_it_ends)
        history.records(max_age=60)
    (record,) = history.records()
    assert (record.state, record.metrics) == ("complete", {"error": 0.25})


def test_who_took_a_trial_over_is_seen(study) -> None:
    trial = begin(study)
    study.log.report(trial, {1: 0.5})
    assert study.history.records()[0].worker == "one"
    study.log.resume(trial, {"worker": "two", "device": "cuda"})
    assert study.history.records(max_age=60)[0].worker == "one"
    (record,) = study.history.records()
    assert (record.worker, record.device, record.values) == ("two", "cuda", {1: 0.5})


def test_trials_of_others_are_left_out(study) -> None:
    begin(study)
    study.database.optuna.create_new_trial(study.id)
    twice = begin(study)
    assert [record.number for record in study.history.records()] == [0, 2]
    study.log.discard(twice)
    assert [record.number for record in study.history.records()] == [0]
    assert [record.number for record in other_look(study).records()] == [0]


def test_the_trials_of_a_slot_come_with_all_of_their_values(study) -> None:
    trial = begin(study)
    for epoch in (1, 2, 3):
        study.log.report(trial, {epoch: 1 / epoch})
    slot = study.history.records()[0].slot
    assert [r.values for r in study.history.of_slot(slot)] == [{1: 1.0, 2: 0.5, 3: 1 / 3}]
    assert study.history.of_slot(slot + 1) == []


def test_many_trials_are_read_at_once_as_few_are(study, monkeypatch) -> None:
    for _ in range(3):
        study.log.report(begin(study, rates=[[1.0]]), {1: 0.5})
    few = other_look(study).records()
    monkeypatch.setattr("clrsearch.storage.trials.CHUNK", 1)
    assert other_look(study).records() == few


def test_what_somebody_has_enqueued_is_left_out(study) -> None:
    optuna.load_study(study_name=study.name, storage=study.database.optuna).enqueue_trial({})
    number = begin(study, rates=[[1.0]])
    assert [record.number for record in study.history.records()] == [number]
