"""Jobs of the kinds that people train: run, killed and resumed, and replayed to the last bit."""

from __future__ import annotations

import pytest
from running import ALONE

from clrsearch import service
from clrsearch.search import StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.worker import WorkerSettings

JOBS = {"Table": 3, "Texts": 3, "Language": 3, "Boxes": 3, "Digits": 3}  # with their validations
FATAL_STEP = {"Table": 25, "Texts": 14, "Language": 45, "Boxes": 5, "Digits": 25}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_run_killed_resumed_and_replayed(
    job, url, task_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("CLRSEARCH_TEST_FATAL_STEP", str(FATAL_STEP[job]))
    monkeypatch.setenv("CLRSEARCH_TEST_FATAL_FLAG", str(tmp_path / "killed"))
    plan = StudyPlan(task=f"jobs.py:{job}", trials=2, confirm=ALONE, pruner="none", seed=5)
    notes: list[str] = []
    service.run(
        plan,
        name="mine",
        workers=1,
        settings=WorkerSettings(task_dir=task_dir, checkpoint_seconds=0.0),
        on_note=notes.append,
    )
    assert (tmp_path / "killed").exists()
    assert any("SIGKILL" in note for note in notes)
    with open_database(url) as database, database.engine.connect() as connection:
        query = "SELECT attempt, checkpoint IS NOT NULL FROM clrsearch_slots ORDER BY attempt"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == [(1, 1), (2, 1)]
    snapshot = service.show("mine").snapshot
    assert snapshot.slots == {SlotState.COMPLETE: 2}
    for record in snapshot.records:
        assert sorted(record.values) == list(range(1, JOBS[job] + 1))
        assert record.drift == 0.0
        assert service.replay("mine", record.number, device="cpu", task_dir=task_dir).matches
