"""Trials that begin alike train their beginning once, and come to what they come to alone."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

import pytest
from running import PATIENCE, begin, children, command, records, wait_for

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, load_plan
from clrsearch.storage import open_database
from clrsearch.training import Trunks
from clrsearch.worker import WorkerSettings

FEW_STARTS = {
    "families": ("wsd",),
    "trials": 8,
    "epochs": 8,
    "seeds": 1,
    "trunks": 2,
    "sampler": "surrogate",
    "allocation": "led",
}


ONE_START = {"task": "tiny.py:Noisy", "trials": 3, "epochs": 4, "trunks": 1}


@pytest.fixture(autouse=True)
def as_often_as_can_be(monkeypatch) -> None:
    """States are kept after epochs of milliseconds, too."""
    monkeypatch.setattr("clrsearch.worker.sharing.SAVES_APART", 0)


def worked(name: str, task_dir, *, trunk_gb: float = 10.0, **changes):
    plan = load_plan(
        None,
        {"task": "tiny.py:Noisy", "pruner": "none", "confirm.enabled": False}
        | FEW_STARTS
        | changes,
    )
    settings = WorkerSettings(device="cpu", task_dir=task_dir, trunk_gb=trunk_gb)
    notes: list[str] = []
    result = service.run(plan, name=name, workers=0, settings=settings, on_note=notes.append)
    return result.snapshot, notes


def told(snapshot) -> list:
    return [
        (each.family, dict(each.params), each.seed_index, dict(each.values), dict(each.metrics))
        for each in snapshot.records
    ]


def trained(snapshot) -> int:
    return sum(record.epoch - record.inherited for record in snapshot.records)


def test_shared_beginnings_change_no_bit(url, task_dir) -> None:
    together, notes = worked("together", task_dir)
    apart, _ = worked("apart", task_dir, trunk_gb=0)
    assert not notes
    assert told(together) == told(apart)
    assert trained(apart) == 64
    assert trained(together) < 45
    shared = [record for record in together.records if record.inherited]
    assert len(shared) >= 4
    for record in shared:
        again = service.replay("together", record.number, device="cpu", task_dir=task_dir)
        assert again.matches  # trained from its first step


def test_nothing_is_left_of_them_at_the_end(url, task_dir, tmp_path) -> None:
    worked("mine", task_dir)
    assert not list(tmp_path.rglob("trunks"))


def test_pruned_trials_leave_their_beginnings_as_well(url, task_dir) -> None:
    """Pruning decides by values, which are those of unshared trials."""
    pruned = {"pruner": "lenient", "trials": 30, "seeds": 1}
    together, _ = worked("together", task_dir, **pruned)
    apart, _ = worked("apart", task_dir, trunk_gb=0, **pruned)
    for one, other in zip(together.records, apart.records, strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
        assert one.inherited <= one.epoch
    assert [each.state for each in together.records].count("pruned") > 0


def test_a_confirmation_shares_what_its_finalists_have_in_common(url, task_dir) -> None:
    confirmed = {
        "confirm.enabled": True,
        "confirm.seeds": 2,
        "trunks": 1,
        "families": ("wsd", "step"),
        "allocation": "equal",
        "bounds.step.drops": 1,
    }
    together, _ = worked("together", task_dir, **confirmed)
    apart, _ = worked("apart", task_dir, trunk_gb=0, **confirmed)
    runs, alone = together.confirmed.runs, apart.confirmed.runs
    assert [dict(run.values) for run in runs] == [dict(run.values) for run in alone]
    assert [dict(run.test) for run in runs] == [dict(run.test) for run in alone]
    assert sum(run.inherited for run in runs) > 0


def test_what_cannot_be_stored_is_not_shared(url, task_dir, tmp_path) -> None:
    """A file lies where the folder should be: trials train from their start, with one note."""
    service.run(
        load_plan(
            None,
            {"task": "tiny.py:Noisy", "confirm.enabled": False} | FEW_STARTS | {"trials": 1},
        ),
        name="mine",
        workers=0,
        settings=WorkerSettings(device="cpu", task_dir=task_dir),
    )
    with open_database(url) as database:
        uuid = Study.open(database, "mine").uuid
    (folder,) = tmp_path.rglob(uuid)
    (folder / "trunks").write_text("in the way")
    found, notes = worked("mine", task_dir, trials=4, pruner="lenient")
    assert [each.end for each in found.records] == ["complete"] * 4
    assert [each.inherited for each in found.records] == [0] * 4
    (note,) = notes
    assert note.startswith("equal beginnings of trials are no longer shared, since the state of")


def under_way(url, ended: int) -> bool:
    """Whether so many trials have ended, and another one trains."""
    states = [record.state for record in records(url)]
    return states.count("complete") >= ended and "running" in states


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_killed_workers_do_no_harm(url, task_dir, seconds) -> None:
    """With checkpoints of their own, and without any, so that trials begin anew from a trunk."""
    begin(url, task_dir, **{**FEW_STARTS, "trials": 6}, confirm=ConfirmPlan(enabled=False))
    process = command(
        *("launch", "local", "mine", "--workers", "2", "--task-dir", str(task_dir)),
        *("--device", "cpu", "--checkpoint-seconds", seconds),
        cwd=task_dir,
    )
    for ended in (2, 3):
        wait_for(partial(under_way, url, ended))
        for worker in children(process.pid)[:1]:
            subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(worker)], check=False)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    found = records(url)
    assert [each.state for each in found] == ["complete"] * 6
    assert sorted(each.slot for each in found) == list(range(6))
    assert all(each.drift == 0.0 for each in found)
    shared = [each for each in found if each.inherited]
    assert shared
    for record in shared[-2:]:
        assert service.replay("mine", record.number, device="cpu", task_dir=task_dir).matches


def test_states_of_another_model_are_told_and_not_used(url, task_dir, tmp_path) -> None:
    """All that are there are overwritten by that of another model, under their names."""
    begin(url, task_dir, **FEW_STARTS | ONE_START)
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=1)
    service.work("mine", settings=settings)
    (folder,) = tmp_path.rglob("trunks")
    others = Trunks(folder, 1e9)
    for path in folder.glob("*.pt"):
        others.save(path.stem, {1: 0.5}, {"model": {}})
    notes: list[str] = []
    service.work("mine", settings=settings, on_note=notes.append)
    assert notes and all("a beginning that it shares cannot be used: " in note for note in notes)
    assert [record.state for record in records(url)] == ["complete"] * 2
    assert records(url)[1].inherited == 0
    assert service.replay("mine", 1, device="cpu", task_dir=task_dir).matches


def test_what_was_shared_is_pruned_with_checkpoints(url, task_dir, tmp_path) -> None:
    begin(url, task_dir, **FEW_STARTS | ONE_START)
    settings = WorkerSettings(device="cpu", task_dir=task_dir, max_trials=1)
    service.work("mine", settings=settings)
    assert list(tmp_path.rglob("trunks/*.pt"))
    service.prune_checkpoints()
    assert list(tmp_path.rglob("trunks/*.pt"))  # for the trials that are left
    service.cancel("mine")
    service.prune_checkpoints()
    assert not list(tmp_path.rglob("trunks"))
