"""A training loop of the user's own, searched from the command line to the verdict."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

PATIENCE = 300.0  # seconds for what takes a few on an idle machine
GIVEN = {"epochs": 4, "metric": "error", "direction": "minimize"}
TOLD = ("--epochs", "4", "--set", "metric=error", "--set", "direction=minimize")


def begin(url, task_dir, name, **keys) -> None:
    plan = StudyPlan(
        **({"families": ("cyclic",), "task": f"loops.py:{name}", "pruner": "none"} | GIVEN | keys)
    )
    loaded = load_task(plan.task, options=plan.options, folder=task_dir)
    facts = probe(loaded, device=torch.device("cpu"), **GIVEN)
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


@contextmanager
def worker(task_dir):
    """A process that does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clrsearch", "worker", "mine", "--checkpoint-seconds", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=task_dir,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def claims_until(url, condition):
    deadline = time.monotonic() + PATIENCE
    with open_database(url) as database:
        study = Study.open(database, "mine")
        while not condition(study):
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.02)
        return study.slots.claims()


def test_from_the_command_line_to_the_verdict(clrsearch, url, task_dir, monkeypatch) -> None:
    monkeypatch.chdir(task_dir)
    run = ("run", "--task", "loops.py:train", *TOLD, "--name", "mine", "--trials", "12")
    code, _, errors = clrsearch(
        *run, "--set", "confirm.top=1", "--set", "confirm.seeds=2", "--workers", "1"
    )
    assert (code, errors) == (0, "")
    now = service.show("mine").snapshot
    assert now.done == 12
    assert all(run.test.keys() == {"error"} for run in now.confirmed.runs)
    assert now.confirmed.test.keys() == {run.finalist for run in now.confirmed.runs}
    for record in now.records[:3]:
        assert service.replay("mine", record.number, device="cpu").matches
    assert "4 epochs of 4 steps" in service.best("mine").code
    for form in ("json", "toml", "optax", "table"):
        assert clrsearch("best", "mine", "--format", form)[0] == 0
    assert clrsearch("report", "mine", "-o", str(url.file.with_name("r.html")))[0] == 0


def test_a_killed_trial_goes_on_from_its_checkpoint(url, task_dir) -> None:
    alone = ConfirmPlan(enabled=False)
    begin(url, task_dir, "train", trials=1, confirm=alone, options={"pause": 0.5})
    with worker(task_dir) as lost:
        (claim,) = claims_until(url, lambda s: any(c.checkpoint for c in s.slots.claims()))
        os.kill(lost.pid, signal.SIGKILL)
    with open_database(url) as database:
        Study.open(database, "mine").slots.release(claim.worker)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    (record,) = service.show("mine").snapshot.records
    assert (record.number, record.state, record.drift) == (0, "complete", 0.0)
    assert service.replay("mine", 0, device="cpu", task_dir=task_dir).matches


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_saves_nothing_begins_again(url, task_dir, tmp_path, monkeypatch, number) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(gate))
    begin(url, task_dir, "unsaved", trials=1, confirm=ConfirmPlan(enabled=False))
    with worker(task_dir) as lost:
        (claim,) = claims_until(url, lambda s: any(r.epoch for r in s.history.records()))
        lost.send_signal(number)
        gate.touch()
        lost.communicate(timeout=PATIENCE)
    assert lost.returncode == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    with open_database(url) as database:
        slots = Study.open(database, "mine").slots
        slots.release(claim.worker)
        assert slots.counts() == {SlotState.OPEN: 1}
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    (record,) = service.show("mine").snapshot.records
    assert (record.number, record.state, record.drift) == (0, "complete", 0.0)
    assert list(record.values) == [1, 2, 3, 4]


def test_the_hopeless_are_pruned(url, task_dir) -> None:
    plan = {"trials": 40, "pruner": "lenient", "seed": 3, "sampler": "tpe", "seeds": 1}
    begin(url, task_dir, "train", confirm=ConfirmPlan(enabled=False), **plan)
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    records = service.show("mine").snapshot.records
    pruned = [record for record in records if record.state == "pruned" and not record.diverged]
    assert pruned
    assert all(2 <= record.epoch < 4 for record in pruned)


def test_a_confirmation_without_a_test_split(url, task_dir, tmp_path, monkeypatch) -> None:
    (tmp_path / "gate").touch()
    monkeypatch.setenv("CLRSEARCH_TEST_GATE", str(tmp_path / "gate"))
    begin(url, task_dir, "unsaved", trials=2, confirm=ConfirmPlan(top=1, seeds=2))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    now = service.show("mine").snapshot
    assert now.confirmed.verdict is not None
    assert now.confirmed.test == {}


def test_a_mistake_in_a_loop_is_told_in_a_line(clrsearch, url, task_dir, monkeypatch) -> None:
    monkeypatch.chdir(task_dir)
    run = ("run", "--name", "mine", "--trials", "4", "--workers", "0", *TOLD)
    code, _, errors = clrsearch(*run, "--task", "loops.py:per_epoch")
    assert code == 2
    assert "call it after each optimizer.step(), not once per epoch" in errors
    code, _, errors = clrsearch("run", "--task", "loops.py:train", "--name", "other")
    assert code == 2
    assert "is a custom training loop: give its epochs" in errors
    code, _, errors = clrsearch("range-test", "--task", "loops.py:train", *TOLD[2:])
    assert code == 2
    assert len(errors.splitlines()) == 1
    code, _, errors = clrsearch("run", "--range-test", "--task", "loops.py:train", *TOLD)
    assert code == 2
    assert "a range test trains batch by batch" in errors
    assert not url.file.exists()


def test_a_script_of_sixty_lines_becomes_searchable_by_changing_few(
    clrsearch, url, task_dir, monkeypatch
) -> None:
    before, after = ((task_dir / f"script_{which}.py").read_text() for which in ("before", "after"))
    assert len(before.splitlines()) == 61
    changes = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith(("+ ", "- ")) and line[2:].strip()
    ]
    assert sum(line.startswith("+ ") for line in changes) == 7
    assert sum(line.startswith("- ") for line in changes) == 5
    page = (task_dir.parent.parent / "docs/tutorials/your-loop.md").read_text()
    for script, name in ((before, "main()"), (after, "main(run)")):
        end = script[script.index("    optimizer = ") :]
        assert f"```python\ndef {name}:\n    ...\n{end}```" in page
    monkeypatch.chdir(task_dir)
    told = ("--epochs", "4", "--set", "metric=accuracy", "--set", "direction=maximize")
    run = ("run", "--task", "script_after.py:main", "--trials", "3", "--workers", "1", *told)
    code, _, errors = clrsearch(*run, "--no-confirm")
    assert code == 0
    (line,) = errors.splitlines()  # what the script prints while it is tried out
    assert line.startswith("epoch 1: 0.")
    now = service.show("script_after").snapshot
    assert now.done == 3
    assert now.search_best.value > 0.5


def test_the_changed_script_still_runs_by_itself(url, task_dir, tmp_path) -> None:
    command = [sys.executable, str(task_dir / "script_after.py"), "--width", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if "/12: accuracy 0." in line]
    assert [line.split("/")[0] for line in told] == [f"epoch {epoch}" for epoch in range(1, 13)]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    command[-2] = "--depth"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("unrecognized arguments: --depth 8")


def test_a_script_that_needs_arguments_is_given_some(
    clrsearch, url, task_dir, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(task_dir)
    told = (*TOLD, "--trials", "2", "--workers", "0", "--no-confirm")
    run = ("run", "--task", "argued.py:train", *told)
    code, _, errors = clrsearch(*run)
    assert code == 2
    usage, missing, last = errors.splitlines()
    assert usage == "usage: argued.py [-h] --data DATA [--lr LR]"
    assert missing == "argued.py: error: the following arguments are required: --data"
    assert last.startswith("clrsearch: a command-line argument was missing or wrong while running")
    assert "--set 'args=" in last
    assert not url.file.exists()
    given = ("--set", """args="--data 'my file' --lr 0.002\"""")
    code, _, errors = clrsearch(*run, *given)
    assert (code, errors) == (0, "")
    assert service.show("argued").snapshot.done == 2
    with open_database(url) as database:
        study = Study.open(database, "argued")
        assert study.plan.args == "--data 'my file' --lr 0.002"
        assert study.facts.base_lr == 0.002
    assert service.replay("argued", 0, device="cpu").matches
    code, _, errors = clrsearch(*run, "--set", "args=--data other")
    assert code == 2
    assert "args is \"--data 'my file' --lr 0.002\" there and '--data other' here" in errors
