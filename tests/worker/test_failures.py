"""Whom failures speak against: the task, or the machine that met them; with real processes."""

from __future__ import annotations

import subprocess
import sys

import torch
from records import make_record

from clrsearch import service
from clrsearch.errors import TaskError
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings
from clrsearch.worker.failures import keeps_failing, reason_to_leave

PATIENCE = 300.0  # seconds for what takes a few on an idle machine


def failed(*workers):
    return [
        make_record(number=number, state="failed", worker=worker)
        for number, worker in enumerate(workers)
    ]


def test_three_failures_in_a_row_speak_against_the_task_if_none_is_complete() -> None:
    records = failed("a:1:a", "a:1:a", "a:1:b")
    assert keeps_failing(records, [])
    assert not keeps_failing(records[:2], [])
    assert not keeps_failing([make_record(0.5, number=3), *records], [])
    assert not keeps_failing([*records[:2], make_record(number=2, state="pruned")], [])


def test_they_do_not_while_a_machine_without_failures_works() -> None:
    records = failed("a:1:a", "a:1:a", "a:1:b")
    assert not keeps_failing(records, ["a:1:c", "b:1:a"])
    assert keeps_failing(records, ["a:1:c"])
    assert keeps_failing(failed("b:1:z", "a:1:a", "a:1:a", "a:1:b"), ["b:1:a"])


def test_a_process_leaves_after_two_failures_with_the_last_ones_first_line() -> None:
    assert reason_to_leave([TaskError("a")]) is None
    assert reason_to_leave([TaskError("a"), TaskError("b\nc")]) == (
        "2 trials in a row failed in this process, the last with b"
    )


def begin(url, task_dir, trials) -> None:
    plan = StudyPlan(
        families=("cyclic",),
        task="sick.py:Sick",
        trials=trials,
        pruner="none",
        confirm=ConfirmPlan(enabled=False),
    )
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


def counts(url):
    with open_database(url) as database:
        return Study.open(database, "mine").slots.counts()


def test_a_machine_that_falls_sick_uses_no_slot_up(url, task_dir, monkeypatch) -> None:
    begin(url, task_dir, 20)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir, max_trials=2))
    monkeypatch.setenv("SICK", "")
    ended = subprocess.run(
        [*(sys.executable, "-m", "clrsearch", "launch", "local", "mine"), "--workers", "1"],
        cwd=task_dir,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 4
    reason = (
        "2 trials in a row failed in this process, the last with RuntimeError: the device is "
        "broken (sick.py:13)"
    )
    told, last = (line for line in ended.stderr.splitlines() if line.startswith("clrsearch: "))
    assert told.startswith(f"clrsearch: a worker exited with code 4 ({reason}); its output is in /")
    assert last == (
        f"clrsearch: 18 trials are left, but trials kept failing here ({reason}). "
        "To resume: clrsearch launch local mine --workers 1"
    )
    assert counts(url) == {SlotState.COMPLETE: 2, SlotState.OPEN: 18}
    records = service.show("mine").snapshot.records
    assert [record.state for record in records] == ["complete"] * 2 + ["failed"] * 6
    assert len({record.worker for record in records[2:]}) == 3
    monkeypatch.delenv("SICK")
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    assert counts(url) == {SlotState.COMPLETE: 20}


def test_a_worker_says_in_one_line_why_it_leaves(clrsearch, url, task_dir, monkeypatch) -> None:
    begin(url, task_dir, 3)
    monkeypatch.chdir(task_dir)
    monkeypatch.setenv("SICK", "")
    code, _, errors = clrsearch("worker", "mine", "--device", "cpu")
    assert (code, errors) == (
        4,
        "clrsearch: 2 trials in a row failed in this process, the last with RuntimeError: the "
        "device is broken (sick.py:13)\n",
    )
