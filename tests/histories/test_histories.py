"""Studies that an earlier version made are read, gone on with and judged as that version did.

`record.py` made them. What is proposed for a slot, where a trial is stopped and what is said of a
study follow from what is stored, so a change that keeps behaviour gives all of it again.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from histories.record import BEGUN, STUDIES, said

from clrsearch import service
from clrsearch.reports import result_table
from clrsearch.results import snapshot
from clrsearch.schedules import Constant
from clrsearch.search import ConfirmPlan, Study, hopeless
from clrsearch.storage import Slot, StorageUrl, open_database
from clrsearch.worker import WorkerSettings

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())
ENDED = [name for name in STUDIES if name != "interrupted"]


@pytest.fixture
def stored(tmp_path):
    """Unpacks one: its URL."""

    def unpack(name: str) -> StorageUrl:
        file = tmp_path / f"{name}.db"
        file.write_bytes(gzip.decompress((HERE / f"{name}.db.gz").read_bytes()))
        return StorageUrl(f"sqlite:///{file}")

    return unpack


@pytest.mark.parametrize("name", STUDIES)
def test_every_proposal_is_the_one_that_was_made(name, stored) -> None:
    with open_database(stored(name)) as database:
        study = Study.open(database, name)
        labels = labels_of(database, study)
        records = study.history.records()
        assert len(records) >= BEGUN
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
            assert proposal.family == record.family
            assert proposal.params.keys() == record.params.keys()
            for key, value in record.params.items():
                close = isinstance(value, float)
                assert proposal.params[key] == (pytest.approx(value, rel=1e-6) if close else value)


def labels_of(database, study) -> dict[int, str]:
    """What each slot is for: a family, or any."""
    query = sa.text("SELECT number, family FROM clrsearch_slots WHERE study = :uuid")
    with database.engine.connect() as connection:
        return dict(tuple(row) for row in connection.execute(query, {"uuid": study.uuid}))


@pytest.mark.parametrize("name", ["led", "by-tpe"])
def test_every_trial_is_stopped_where_it_was(name, stored) -> None:
    stopped = 0
    with open_database(stored(name)) as database:
        study = Study.open(database, name)
        records = study.history.records()
        for record in records:
            first = study.traces.seed_points(record.family)
            if record.diverged or study.traces.of(record) in first:
                continue
            if record.family == Constant.family:
                continue
            rivals = [each for each in records[: record.number] if each.family == record.family]
            played = study.trace(record.family, record.params)
            rates = played.before(study.facts.ends).rates[0].tolist()
            judged = [
                hopeless(
                    {epoch: record.values[epoch] for epoch in range(1, last + 1)},
                    rivals,
                    rates,
                    direction="minimize",
                )
                for last in range(1, record.epoch + 1)
            ]
            pruned = record.state == "pruned"
            stopped += pruned
            assert judged == [False] * (record.epoch - 1) + [pruned]
    assert stopped


@pytest.mark.parametrize("name", ENDED)
def test_what_is_said_of_a_study_is_what_was_said(name, stored) -> None:
    same(service.show(name, storage=stored(name)).snapshot, EXPECTED[name])


def test_a_recommended_trial_that_leads_nothing_is_in_the_table_too(stored) -> None:
    """Where much may be lost, the simplest is recommended, be it far from the best."""
    with open_database(stored("led")) as database:
        study = Study.open(database, "led")
        study.plan_confirmation(ConfirmPlan(tolerance=10))
        now = snapshot(study)
    assert now.recommended not in (now.search_best, now.baseline, now.expected_best)
    result_table(now)
    assert now.schedules[now.recommended.number].family == now.recommended.family


def test_an_interrupted_study_ends_as_it_would_have_ended(stored, tmp_path, monkeypatch) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(gate))
    url = stored("interrupted")
    before = service.show("interrupted", storage=url).snapshot
    broken_off = before.records[BEGUN - 1]
    assert broken_off.state == "running" and broken_off.epoch == 4
    tasks = HERE.parent / "tasks_for_tests"
    service.work(
        "interrupted",
        storage=url,
        settings=WorkerSettings(task_dir=tasks, device="cpu", allow_drift=True),
    )
    now = service.show("interrupted", storage=url).snapshot
    resumed = now.records[BEGUN - 1]
    assert (resumed.state, resumed.params) == ("complete", broken_off.params)
    assert resumed.values.items() >= broken_off.values.items()
    same(now, EXPECTED["interrupted"])


def same(snapshot, expected) -> None:
    """Compare, numbers closely: other processors add in other orders."""
    found = json.loads(json.dumps(said(snapshot)))
    for key in ("standings", "p"):
        known = [
            {trial: number or 0.0 for trial, number in each[key].items()}
            for each in (found, expected)
        ]
        assert known[0] == pytest.approx(known[1], rel=1e-4)
        del found[key]
    assert found == {key: each for key, each in expected.items() if key not in ("standings", "p")}
