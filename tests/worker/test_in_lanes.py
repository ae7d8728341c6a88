"""Workers that train several trials at a time, killed, asked to leave, and failing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from running import PATIENCE, begin, records, wait_for

from clrsearch import service
from clrsearch.errors import PlanError
from clrsearch.search import Record, Study
from clrsearch.storage import SlotState, StorageUrl, open_database
from clrsearch.worker import WorkerSettings

CLOSE = 1e-5
"""Of the metric, which is about 1: what rounding in another order comes to in float32."""


def command(*arguments, cwd) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clrsearch", *arguments, "--checkpoint-seconds", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def ended(worker: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = worker.communicate(timeout=PATIENCE)
    return worker.returncode, out, errors


def rows(url: StorageUrl, columns: str) -> list[tuple[Any, ...]]:
    with open_database(url) as database, database.engine.connect() as connection:
        query = f"SELECT {columns} FROM clrsearch_slots ORDER BY number"
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def require_whole(task_dir, *, trials: int, lanes: int) -> list[Record]:
    """All trials are complete, one per slot, and each comes to the same when trained alone."""
    snapshot = service.show("mine").snapshot
    assert snapshot.slots == {SlotState.COMPLETE: trials}
    assert sorted(record.slot for record in snapshot.records) == list(range(trials))
    assert [record.number for record in snapshot.records] == list(range(trials))
    for record in snapshot.records:
        assert record.lanes == lanes
        assert record.drift < CLOSE
        assert sorted(record.values) == list(range(1, 7))
        again = service.replay("mine", record.number, device="cpu", task_dir=task_dir)
        assert again.agrees and again.largest_difference < CLOSE
    return list(snapshot.records)


def test_lanes_are_refilled_until_all_trials_have_ended(clrsearch, url, task_dir) -> None:
    begin(url, task_dir, task="side_by_side.py:Line", trials=7, families=("cyclic", "cosine"))
    worker = command("worker", "mine", "--lanes", "3", cwd=task_dir)
    code, out, errors = ended(worker)
    assert code == 0
    assert "3 trials train together, at " in errors
    assert len([line for line in out.splitlines() if "  complete  epoch  6/6" in line]) == 7
    require_whole(task_dir, trials=7, lanes=3)
    code, out, _ = clrsearch("replay", "mine", "0", "--device", "cpu", "--task-dir", str(task_dir))
    assert code == 0
    assert out.startswith("trial 0 agrees: it was trained in one of 3 lanes, and alone the ") or (
        "identical to the last bit" in out
    )
    status = json.loads(clrsearch("status", "mine", "--json")[1])
    assert status["packing"].startswith("3 trials train together, at ")
    assert "\n3 trials train together, " in clrsearch("status", "mine")[1]


def test_eight_trials_of_a_killed_worker_are_resumed(url, task_dir, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLRSEARCH_TEST_KILLED", str(tmp_path / "killed"))
    begin(url, task_dir, task="side_by_side.py:Killed", trials=8)
    running = command(
        *("launch", "local", "mine", "--workers", "1", "--lanes", "8", "--task-dir", str(task_dir)),
        cwd=task_dir,
    )
    code, out, errors = ended(running)
    assert code == 0, errors
    assert "clrsearch: a worker died of signal 9 (SIGKILL); its output is in " in errors
    assert "8 of 8 trials done, 8 complete" in out
    assert rows(url, "attempt, losses, checkpoint >= 2") == [(2, 0, 1)] * 8
    require_whole(task_dir, trials=8, lanes=8)


@pytest.mark.parametrize(("first", "then"), [("3", "off"), ("off", "3"), ("3", "4")])
def test_whoever_comes_next_goes_on(url, task_dir, first, then) -> None:
    """A worker is asked to leave; another one, with lanes or without, resumes its trials."""
    begin(url, task_dir, task="side_by_side.py:Paced", trials=3)
    worker = command("worker", "mine", "--lanes", first, cwd=task_dir)
    wait_for(lambda: [record for record in records(url) if record.epoch >= 2])
    worker.send_signal(signal.SIGTERM)
    code, _, errors = ended(worker)
    assert code == 0, errors
    begun = {record.number: record.epoch for record in records(url)}
    assert len(begun) == (1 if first == "off" else 3) and min(begun.values()) >= 2
    with open_database(url) as database:
        assert Study.open(database, "mine").slots.claims() == []
    assert all(saved == begun.get(number) for number, saved in rows(url, "number, checkpoint"))

    code, _, errors = ended(command("worker", "mine", "--lanes", then, cwd=task_dir))
    assert code == 0, errors
    found = require_whole(task_dir, trials=3, lanes=int(then) if then != "off" else int(first))
    assert [record.drift for record in found] == [0.0] * 3  # no epoch was trained twice


def test_what_fails_in_lanes_alone_goes_on_alone(url, task_dir) -> None:
    begin(url, task_dir, task="side_by_side.py:FailsInLanes", trials=4)
    code, out, errors = ended(command("worker", "mine", "--lanes", "2", cwd=task_dir))
    assert code == 0
    told = "training in lanes failed, so one trial is trained at a time from here on: RuntimeError"
    assert told in errors and "cannot be done in lanes" in errors
    assert out.count("  complete  epoch  6/6") == 4
    assert [record.state for record in records(url)] == ["complete"] * 4
    assert rows(url, "attempt, losses") == [(2, 0), (2, 0), (1, 0), (1, 0)]


def test_where_lanes_find_no_memory_trials_go_on_alone(url, task_dir) -> None:
    begin(url, task_dir, task="side_by_side.py:TooLarge", trials=4)
    code, out, errors = ended(command("worker", "mine", "--lanes", "2", cwd=task_dir))
    assert code == 0
    told = "training in lanes failed, so one trial is trained at a time from here on: no memory"
    assert errors.count(told) == 1
    assert out.count("  complete  epoch  6/6") == 4


def test_a_number_of_trials_is_kept(url, task_dir) -> None:
    begin(url, task_dir, task="side_by_side.py:Line", trials=12)
    worker = command("worker", "mine", "--lanes", "4", "--max-trials", "3", cwd=task_dir)
    code, out, errors = ended(worker)
    assert code == 0, errors
    assert out.count("  complete  epoch  6/6") == 3
    assert [record.state for record in records(url)] == ["complete"] * 3


def test_what_fails_without_lanes_too_is_the_fault_of_the_task(url, task_dir) -> None:
    begin(url, task_dir, task="side_by_side.py:Fails", trials=4, retries=0)
    code, _, errors = ended(command("worker", "mine", "--lanes", "2", cwd=task_dir))
    assert code == 4, errors  # two in a row in this process
    assert "no such column" in errors
    assert [record.state for record in records(url)] == ["failed", "failed"]


def test_a_diverged_trial_leaves_its_lane(url, task_dir) -> None:
    bounds = {"cyclic": {"max_lr": (1e9, 2e9)}}
    begin(url, task_dir, task="side_by_side.py:Line", trials=5, bounds=bounds)
    code, _, errors = ended(command("worker", "mine", "--lanes", "2", cwd=task_dir))
    assert code == 0, errors
    found = records(url)
    cyclic = [record for record in found if record.family == "cyclic"]
    assert len(found) == 5 and len(cyclic) == 4
    assert all(record.diverged for record in cyclic)
    assert [record.state for record in found if record.family == "constant"] == ["complete"]


def test_a_task_that_is_not_fit_is_refused_or_trained_alone(clrsearch, url, task_dir) -> None:
    loop = {"task": "loops.py:train", "epochs": 4, "metric": "error", "direction": "minimize"}
    begin(url, task_dir, trials=2, **loop)
    reason = "it has a training loop of its own"
    code, _, errors = ended(command("worker", "mine", "--lanes", "2", cwd=task_dir))
    assert code == 2
    assert f"--lanes 2: this task cannot be trained in lanes, as {reason}; leave " in errors
    options = (value for key, each in loop.items() for value in ("--set", f"{key}={each}"))
    given = ("run", *options, "--lanes", "2", "--name", "new", "--task-dir", str(task_dir))
    code, _, errors = clrsearch(*given)
    assert code == 2 and f"--lanes 2: this task cannot be trained in lanes, as {reason}" in errors
    assert clrsearch("status", "new")[0] == 2  # nothing was stored
    code, out, errors = ended(command("worker", "mine", "--lanes", "auto", cwd=task_dir))
    assert code == 0
    assert errors == f"clrsearch: one trial at a time, as {reason}\n"
    assert out.count("complete") == 2


def test_lanes_on_several_gpus_are_refused(clrsearch) -> None:
    with pytest.raises(PlanError, match="give either --gpus-per-trial or --lanes, not both"):
        WorkerSettings(gpus_per_trial=2, lanes=2)
    with pytest.raises(PlanError, match="lanes must be auto, off or at least 1, not 0"):
        WorkerSettings(lanes=0)
    assert WorkerSettings(lanes="auto").to_arguments()[-2:] == ["--lanes", "auto"]
    code, _, errors = clrsearch("worker", "mine", "--lanes", "many")
    assert code == 2 and "choose auto, off or a number, not 'many'" in errors
