"""Workers of two processes on the CPU that are killed, asked to leave, or given too much."""

from __future__ import annotations

import subprocess
import sys

import pytest
from running import PATIENCE, begin, records, wait_for

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.search import Study
from clrsearch.storage import SlotState, open_database
from clrsearch.worker import WorkerSettings

PAIR = ("--gpus-per-trial", "2", "--device", "cpu", "--checkpoint-seconds", "0")


def command(*arguments, cwd) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clrsearch", *arguments, *PAIR],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def require_resumed(task_dir) -> None:
    """The one trial was resumed, and one process comes to the same values."""
    (record,) = service.show("mine").snapshot.records
    assert service.show("mine").snapshot.slots == {SlotState.COMPLETE: 1}
    assert (record.number, record.ranks, record.drift) == (0, 2, 0.0)
    assert len(record.values) == 6
    again = service.replay("mine", 0, device="cpu", task_dir=task_dir)
    assert again.agrees and again.largest_difference < 1e-4


def test_the_trial_of_killed_processes_is_resumed(url, task_dir, tmp_path, monkeypatch) -> None:
    """First one that follows is killed, and then the one that leads."""
    monkeypatch.setenv("CLRSEARCH_TEST_KILLS", str(tmp_path))
    begin(url, task_dir, task="grouped.py:Killed", trials=1)
    running = command("launch", "local", "mine", "--workers", "1", cwd=task_dir)
    out, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, errors
    (line,) = errors.splitlines()  # once for both
    assert "clrsearch: a worker died of signal 9 (SIGKILL); its output is in " in line
    assert "1 of 1 trials done, 1 complete" in out
    assert [(tmp_path / rank).exists() for rank in "01"] == [True, True]
    with open_database(url) as database, database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT attempt, losses FROM clrsearch_slots")
        assert [tuple(row) for row in rows] == [(3, 0)]  # each had saved a new checkpoint
    require_resumed(task_dir)


def test_whoever_is_asked_to_leave_saves_and_hands_back(
    clrsearch, url, task_dir, tmp_path, monkeypatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(gate))
    begin(url, task_dir, task="grouped.py:Waits", trials=1)
    worker = command("worker", "mine", cwd=task_dir)
    wait_for(gate.with_suffix(".reached").exists)  # three epochs are done
    worker.terminate()
    gate.touch()
    _, errors = worker.communicate(timeout=PATIENCE)
    assert (worker.returncode, errors) == (0, "")
    with open_database(url) as database:
        study = Study.open(database, "mine")
        assert study.slots.claims() == [] and study.slots.unfinished() == 1
    (record,) = records(url)
    assert (record.state, record.epoch) == ("running", 3)

    again = command("worker", "mine", cwd=task_dir)
    out, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, errors) == (0, "")
    assert out.startswith("trial   0  complete  epoch  6/6")
    require_resumed(task_dir)
    code, out, _ = clrsearch("replay", "mine", "0", "--device", "cpu", "--task-dir", str(task_dir))
    assert code == 0
    assert out.startswith("trial 0 agrees: 2 processes trained it, and in one the metric is off by")


def test_a_batch_size_that_the_gpus_cannot_share_is_refused(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, trials=1)
    told = (
        "clrsearch: --gpus-per-trial 3 does not divide batch_size, which is 8 for all GPUs "
        "together: set batch_size to 6, or give another number of GPUs\n"
    )
    settings = ("--gpus-per-trial", "3", "--device", "cpu", "--task-dir", str(task_dir))
    assert clrsearch("worker", "mine", *settings) == (2, "", told)
    code, _, errors = clrsearch("launch", "local", "mine", "--workers", "1", *settings)
    assert (code, errors) == (2, told)
    run = ("run", "--task", "tiny.py:Tiny", "--name", "other", "--trials", "1")
    assert clrsearch(*run, *settings) == (2, "", told)
    assert "other" not in clrsearch("list")[1]


def test_a_group_needs_processes_of_its_own(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, trials=1)
    with pytest.raises(PlanError, match="gpus_per_trial needs processes of its own"):
        service.work("mine", settings=WorkerSettings(gpus_per_trial=2, task_dir=task_dir))
    code, _, errors = clrsearch(
        *("run", "--task", "tiny.py:Tiny", "--workers", "0", "--gpus-per-trial", "2"),
        *("--task-dir", str(task_dir)),
    )
    assert code == 2
    assert "--gpus-per-trial 2 needs a process per GPU" in errors
