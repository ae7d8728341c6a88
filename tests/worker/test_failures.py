"""Whom failures speak against: the task, or the machine that met them; with real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from records import make_record

from clrsearch import service
from clrsearch.errors import DeviceFailed, OutOfMemory, TaskError, TaskRaised
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.tasks.load import task_code
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings
from clrsearch.worker.failures import device_failure, keeps_failing, reason_to_leave
from clrsearch.worker.losses import why_given_up

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


def test_another_device_of_the_same_machine_is_another_place() -> None:
    records = [replace(each, device="cuda:0") for each in failed("a:1:a", "a:1:a", "a:1:b")]
    beside = make_record(number=3, state="running", worker="a:1:c", device="cuda:1")
    assert not keeps_failing([*records, beside], ["a:1:c"])
    assert keeps_failing([*records, replace(beside, device="cuda:0")], ["a:1:c"])


def raised(error) -> TaskRaised:
    with pytest.raises(TaskRaised) as caught, task_code("training"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_no_memory_left_is_no_fault_of_the_task(error) -> None:
    found = device_failure(raised(error))
    assert type(found) is OutOfMemory
    assert str(found).startswith("no memory was left: ")


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("NCCL Error 2: unhandled system error"),
    ],
)
def test_a_device_that_fails_is_no_fault_of_the_task(error) -> None:
    assert type(device_failure(raised(error))) is DeviceFailed


@pytest.mark.parametrize("error", [KeyError("CUDA error"), RuntimeError("shape '[2]' is invalid")])
def test_other_errors_are_the_tasks(error) -> None:
    assert device_failure(raised(error)) is None
    assert device_failure(TaskError("CUDA error")) is None
    assert type(device_failure(torch.OutOfMemoryError("x"))) is OutOfMemory  # outside a task's code


def test_a_process_leaves_after_two_failures_with_the_last_ones_first_line() -> None:
    assert reason_to_leave([TaskError("a")]) is None
    assert reason_to_leave([TaskError("a"), TaskError("b\nc")]) == (
        "2 trials in a row failed in this process, the last with b"
    )


def test_a_trial_is_given_up_for_what_its_workers_met() -> None:
    assert why_given_up(2, [5, 5]) is None
    assert why_given_up(3, [5, 5, 5]).endswith(": 3 made no progress")
    assert why_given_up(1, [7]) is None
    assert why_given_up(2, [7, 7]).endswith(": 2 met a failure of the device")
    assert why_given_up(4, [6, 6, 6, 130]) is None
    assert why_given_up(5, [6, 6, 130, 130, 130]).endswith(
        ": 2 ran out of memory, 3 had to leave before the next checkpoint"
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
        "broken (sick.py:14)"
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


def test_one_bad_worker_of_four_costs_one_worker(clrsearch, url, task_dir, tmp_path) -> None:
    error = "CUDA error: misaligned address"
    plan = StudyPlan(
        families=("cyclic",),
        task="sick.py:Poisoned",
        options={"error": error, "mark": str(tmp_path / "poisoned")},
        trials=60,
        pruner="none",
        confirm=ConfirmPlan(enabled=False),
    )
    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    service.run(plan, name="mine", workers=4, settings=settings)
    assert counts(url) == {SlotState.COMPLETE: 60}
    states = [record.state for record in service.show("mine").snapshot.records]
    assert states == ["complete"] * 60
    ((worker, why),) = service.status("mine").departures.items()
    assert worker.startswith(f"{socket.gethostname()}:")
    assert why.startswith(f"the device failed: RuntimeError: {error} (sick.py:")
    code, out, _ = clrsearch("status", "mine")
    assert code == 0 and worker in out and "the device failed" in out
    code, out, _ = clrsearch("logs", "mine", worker)
    assert code == 0 and f"RuntimeError: {error}" in out
    code, out, _ = clrsearch("logs", "mine")
    assert code == 0 and len(out.splitlines()) == 5  # four, and the one that came in its place


def test_a_worker_says_in_one_line_why_it_leaves(clrsearch, url, task_dir, monkeypatch) -> None:
    begin(url, task_dir, 3)
    monkeypatch.chdir(task_dir)
    monkeypatch.setenv("SICK", "")
    code, _, errors = clrsearch("worker", "mine", "--device", "cpu")
    assert (code, errors) == (
        4,
        "clrsearch: 2 trials in a row failed in this process, the last with RuntimeError: the "
        "device is broken (sick.py:14)\n",
    )
