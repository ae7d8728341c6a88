"""The main job from end to end, with real worker processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from json import loads
from pathlib import Path

import pytest
import torch

from clrsearch import service
from clrsearch.errors import (
    ClrsearchError,
    FailsHere,
    PlanError,
    PlanMismatch,
    StorageError,
    StudyError,
    StudyStopped,
)
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import SlotState, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings

PATIENCE = 300.0  # seconds for what takes a few on an idle machine
ALONE = ConfirmPlan(enabled=False)  # the search alone


def run(task_dir, *, name=None, workers=1, on_change=lambda snapshot: None, **keys):
    plan = StudyPlan(
        **({"families": ("cyclic",), "task": "tiny.py:Tiny", "trials": 6, "confirm": ALONE} | keys)
    )
    return service.run(
        plan,
        name=name,
        workers=workers,
        settings=WorkerSettings(task_dir=task_dir),
        on_change=on_change,
    )


def work_here(task_dir, name, **keys):
    """Make a study and work it off in this process: no worker has to import torch first."""
    plan = StudyPlan(
        **({"families": ("cyclic",), "task": "tiny.py:Tiny", "trials": 6, "confirm": ALONE} | keys)
    )
    loaded = load_task(plan.task, options=plan.options, folder=task_dir)
    facts = probe(loaded, epochs=plan.epochs, device=torch.device("cpu"))
    with open_database(service.storage_url(None), create=True) as database:
        Study.create(database, name, plan, facts, service.versions(task_dir))
    service.work(name, settings=WorkerSettings(task_dir=task_dir))
    return service.show(name).snapshot


def test_a_study_ends_with_a_schedule_that_can_be_pasted(url, task_dir) -> None:
    seen = []
    result = run(task_dir, workers=3, trials=40, pruner="none", on_change=seen.append)
    assert result.snapshot.done == result.snapshot.total == 40
    assert not result.interrupted
    assert seen[-1].done == 40
    records = result.snapshot.records
    assert sorted(record.slot for record in records) == list(range(40))  # each used up once
    assert all(record.state != "running" for record in records)
    leader = result.snapshot.search_best
    complete = [r for r in records if r.state == "complete"]
    assert leader.value == min(record.value for record in complete)
    assert result.snapshot.baseline.family == "constant"

    found = service.best("tiny")
    assert found.trial.number == result.snapshot.recommended.number
    namespace: dict = {}
    exec(found.code, namespace)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    namespace["make_scheduler"](optimizer, 4)
    first = found.schedule.at(torch.zeros(1).double().numpy())[0][0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(first, rel=1e-12)

    # the first slots are fixed settings: the same runs, whichever worker had them
    alone = work_here(task_dir, "alone", pruner="none", trials=40)
    for slot in range(3):
        one, other = (
            next(record for record in each.records if record.slot == slot)
            for each in (alone, result.snapshot)
        )
        assert (one.params, one.values) == (other.params, other.values)
    for record in records[::8]:
        assert service.replay("tiny", record.number, task_dir=task_dir).matches


def test_a_worker_on_another_kind_of_device_is_refused(url, task_dir) -> None:
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=2, confirm=ALONE)
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        study = Study.create(database, "mine", plan, facts, service.versions(task_dir))
        assert study.device is None
        slot = study.slots.claim("gone")
        who = {"worker": "gone", "device": "meta:1"}
        study.slots.bind(slot, study.begin(slot, study.space.seed_points("cyclic")[0], who))
        study.slots.release("gone")
        assert study.device == "meta"
    settings = WorkerSettings(task_dir=task_dir, device="cpu")
    with pytest.raises(StudyError, match=r"^mine trains on meta, and this worker on cpu: leave "):
        service.work("mine", settings=settings)
    with pytest.raises(PlanError, match="the device 'meta' cannot be used"):
        service.work("mine", settings=replace(settings, device=None))
    with pytest.raises(PlanError, match="the device 'meta' cannot be used"):
        run(task_dir, name="mine", trials=2)
    service.work("mine", settings=replace(settings, allow_drift=True))
    assert service.show("mine").snapshot.done == 2


def test_a_finished_study_is_shown_and_grown(url, task_dir) -> None:
    work_here(task_dir, "tiny", trials=4)
    again = run(task_dir, trials=4, workers=0)
    assert again.began_finished
    assert again.snapshot.total == 4
    grown = run(task_dir, trials=6, workers=0)
    assert not grown.began_finished
    assert grown.snapshot.done == grown.snapshot.total == 6
    assert [record.slot for record in grown.snapshot.records] == list(range(6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "seed is 0 there and 3 here"),
        ({"epochs": 8}, "epochs is the task's own there and 8 here"),
        ({"trials": 2}, "trials is 4 there and 2 here; it can only be increased"),
        ({"bounds": {"cyclic": {"cycles": 1}}}, "bounds is {} there"),
    ],
)
def test_another_plan_under_the_same_name_is_refused_by_key(
    changes, message, url, task_dir
) -> None:
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=4)
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    facts = facts.model_copy(update={"source": load_task(plan.task, folder=task_dir).source})
    with open_database(url, create=True) as database:
        Study.create(database, "tiny", plan, facts, service.versions(task_dir))
    with pytest.raises(PlanMismatch, match=message):
        run(task_dir, workers=0, **({"trials": 4} | changes))
    with open_database(url) as database:
        assert Study.open(database, "tiny").plan == plan


def test_a_changed_task_is_refused(url, tmp_path, task_dir) -> None:
    copied = tmp_path / "mine.py"
    copied.write_text((task_dir / "tiny.py").read_text())
    work_here(tmp_path, "mine", task="mine.py:Tiny", trials=1)
    copied.write_text(copied.read_text() + "\n# another version\n")
    with pytest.raises(PlanMismatch, match=r"the source of mine.py:Tiny has changed"):
        run(tmp_path, workers=0, task="mine.py:Tiny", trials=1)
    with pytest.raises(StudyError, match=r"source of mine.py:Tiny has changed.*allow_drift=True"):
        service.work("mine", settings=WorkerSettings(task_dir=tmp_path))


def test_a_mended_task_begins_anew_where_nothing_but_failures_would_be_lost(
    url, tmp_path, task_dir
) -> None:
    copied = tmp_path / "mine.py"
    text = (task_dir / "tiny.py").read_text()
    copied.write_text(text)
    with pytest.raises(FailsHere):
        work_here(tmp_path, "mine", task="mine.py:FailsLater")
    copied.write_text(text.replace('raise KeyError("no such column")', "pass"))
    result = run(tmp_path, workers=0, task="mine.py:FailsLater", trials=3)
    assert result.snapshot.done == 3
    assert all(record.state == "complete" for record in result.snapshot.records)


def test_a_failed_trial_cannot_be_replayed(url, task_dir) -> None:
    work_here(task_dir, "failing", task="tiny.py:FailsLater", trials=1, retries=0)
    with pytest.raises(StudyError, match=r"trial 0 of failing failed.*clrsearch show failing 0"):
        service.replay("failing", 0, task_dir=task_dir)


def test_a_study_deleted_under_a_worker_is_told_in_one_line(url, task_dir) -> None:
    work_here(task_dir, "gone", trials=1)
    with (
        pytest.raises(StorageError, match="the study has been deleted in the meantime"),
        open_database(url) as database,
    ):
        study = Study.open(database, "gone")
        Study.open(database, "gone").delete()
        study.stop(None)


def test_a_task_that_keeps_failing_stops_the_study_and_shows_why(url, task_dir) -> None:
    with pytest.raises(StudyStopped, match="failed repeatedly") as caught:
        run(task_dir, task="tiny.py:FailsLater", trials=30, name="failing")
    assert 'raise KeyError("no such column")' in caught.value.traceback
    shown = service.show("failing").snapshot
    assert [record.slot for record in shown.records] == [0, 1, 2]
    assert len({record.worker for record in shown.records}) == 2
    with pytest.raises(StudyError, match=r"no complete trial yet: 0 complete, .* 0 failed of 30"):
        service.best("failing")


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"task": "tiny.py:NanMetric"}, ClrsearchError),
        ({"bounds": {"cyclic": {"max_lr": (1.0, 0.1)}}}, PlanError),
        ({"epochs": 3, "stepsize": "integers"}, PlanError),
        (
            {"options": {"optimizer": "plain"}, "bounds": {"cyclic": {"max_momentum": 0.9}}},
            PlanError,
        ),
    ],
)
def test_what_cannot_be_searched_leaves_no_database_behind(keys, error, url, task_dir) -> None:
    with pytest.raises(error):
        run(task_dir, workers=0, **keys)
    assert not url.file.exists()


def command(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "clrsearch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition, seconds=PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def trials_begun(url) -> int:
    if not url.file.exists():
        return 0
    try:
        return len(service.show("slow").snapshot.running)
    except ClrsearchError:
        return 0


@pytest.mark.parametrize("whole_group", [True, False], ids=["Ctrl-C", "kill -INT"])
def test_ctrl_c_gives_slots_back_and_the_next_run_goes_on(
    url, task_dir, whole_group, clrsearch, monkeypatch
) -> None:
    arguments = (
        "run",
        "--name",
        "slow",
        "--task",
        "tiny.py:Slow",
        "--trials",
        "3",
        "--workers",
        "2",
        "--no-confirm",
    )
    first = command(*arguments, cwd=task_dir, start_new_session=True)
    wait_for(lambda: trials_begun(url) == 2)
    (os.killpg if whole_group else os.kill)(first.pid, signal.SIGINT)
    out, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130
    assert f"Interrupted. To resume: clrsearch {' '.join(arguments)}" in out
    assert errors.startswith("clrsearch: workers are saving their trials and exiting; Ctrl-C again")
    assert len(errors.splitlines()) == 1
    with open_database(url) as database:
        counts = Study.open(database, "slow").slots.counts()
        assert counts[SlotState.CLAIMED] == 0
        begun = [record.number for record in Study.open(database, "slow").history.records()]

    monkeypatch.chdir(task_dir)
    code, _, errors = clrsearch(*arguments, "--workers", "0")
    assert (code, errors) == (0, "")
    records = service.show("slow").snapshot.records
    assert [record.state for record in records] == ["complete"] * 3
    assert {record.number for record in records} >= set(begun)
    assert all(sorted(record.values) == [1, 2, 3, 4] for record in records)


def test_without_worker_processes_everything_happens_in_this_one(task_dir, tmp_path) -> None:
    text = "import os\nprint('in', os.getpid(), flush=True)\n"
    (tmp_path / "mine.py").write_text(text + (task_dir / "tiny.py").read_text())
    script = "import os\nfrom clrsearch.cli import main\nprint('script', os.getpid())\nmain()"
    arguments = ["run", "--task", "mine.py:Tiny", "--trials", "2", "--workers", "0", "--no-confirm"]
    storage = ["--storage", f"sqlite:///{tmp_path / 'studies.db'}"]
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments, *storage],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (script_pid,) = re.findall(r"script (\d+)", ran.stdout)
    assert set(re.findall(r"^in (\d+)", ran.stdout, re.MULTILINE)) == {script_pid}
    assert "2 of 2 trials done" in ran.stdout


def test_a_worker_joins_from_another_shell(url, task_dir) -> None:
    work_here(task_dir, "joined", trials=1)
    with open_database(url) as database:
        Study.open(database, "joined").grow(4)
    worker = command("worker", "joined", "--task-dir", str(task_dir), cwd="/")
    out, errors = worker.communicate(timeout=PATIENCE)
    assert (worker.returncode, errors) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["trial", str(number)] for number in (1, 2, 3)
    ]


def test_a_worker_of_a_failing_study_leaves_with_3(url, task_dir, clrsearch) -> None:
    work_here(task_dir, "stopped", trials=1)
    with open_database(url) as database:
        study = Study.open(database, "stopped")
        study.grow(4)
        study.stop("Traceback of the task")
    code, out, errors = clrsearch("worker", "stopped", "--task-dir", str(task_dir))
    assert code == 3
    assert errors.splitlines()[0] == "Traceback of the task"
    said = "clrsearch: stopped was stopped: its task failed repeatedly"
    assert (out, errors.splitlines()[-1]) == ("", said)


def test_replay_notices_a_trial_that_does_not_match(url, task_dir) -> None:
    work_here(task_dir, "mine", trials=1)
    assert service.replay("mine", 0, task_dir=task_dir).matches
    with open_database(url) as database:
        study = Study.open(database, "mine")
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE trial_intermediate_values SET intermediate_value = 9.0 WHERE step = 2"
            )
        assert study.trial(0).values[2] == 9.0
    again = service.replay("mine", 0, task_dir=task_dir)
    assert not again.matches
    assert again.largest_difference == pytest.approx(abs(9.0 - again.values[2]))


def test_a_diverged_trial_is_replayed_to_the_same_end(url, task_dir) -> None:
    work_here(task_dir, "explodes", task="tiny.py:Explodes", trials=1)
    again = service.replay("explodes", 0, task_dir=task_dir)
    assert again.trial.diverged
    assert again.matches


def test_delete_removes_one_study(url, task_dir) -> None:
    work_here(task_dir, "one", trials=1)
    work_here(task_dir, "two", trials=1)
    service.delete("one")
    assert [each.name for each in service.list_studies()] == ["two"]
    with pytest.raises(StudyError, match="no study one"):
        service.delete("one")


def test_a_study_with_live_workers_is_not_deleted(url, task_dir) -> None:
    work_here(task_dir, "busy", trials=1)
    with open_database(url) as database:
        study = Study.open(database, "busy")
        study.grow(2)
        study.slots.claim("someone")
    with pytest.raises(StudyError, match="workers are still running 1 of busy's trials"):
        service.delete("busy")


def test_a_watch_survives_an_outage_and_ends_with_the_last_slot(
    far_url, postgresql, cable, task_dir, monkeypatch
) -> None:
    monkeypatch.setattr("clrsearch.service.look.WATCH_SECONDS", 0.01)
    monkeypatch.setenv("CLRSEARCH_STORAGE", postgresql.reveal())
    work_here(task_dir, "mine", trials=1)
    seen, causes = [], []

    def show(status) -> None:
        seen.append((status.done, len(status.live)))
        if len(seen) == 1:
            cable.cut()
        elif len(seen) == 2:
            slots.finish(slot, SlotState.PRUNED)

    def wait(cause) -> None:
        causes.append(cause)
        cable.join()

    with open_database(postgresql) as database:
        study = Study.open(database, "mine")
        study.grow(2)
        slots, slot = study.slots, study.slots.claim("someone")
        last = service.status("mine", storage=far_url, watch=True, on_change=show, on_wait=wait)
    assert seen == [(1, 1), (1, 1), (2, 0)]
    assert (last.done, last.left) == (2, 0)
    assert len(causes) == 1


def test_ctrl_c_ends_a_watch_and_nothing_else(url, task_dir) -> None:
    work_here(task_dir, "mine", trials=1)
    with open_database(url) as database:
        Study.open(database, "mine").grow(2)
    watch = command("status", "mine", "--watch", "--json")
    assert loads(watch.stdout.readline())["slots"]["open"] == 1
    watch.send_signal(signal.SIGINT)
    _, errors = watch.communicate(timeout=PATIENCE)
    assert (watch.returncode, errors) == (0, "")


def test_names_come_from_the_task() -> None:
    names = ["digits", "some/where/mine.py:Mine", "package.module:NAME"]
    assert [service.default_name(StudyPlan(task=name)) for name in names] == [
        "digits",
        "mine",
        "module",
    ]


def test_optuna_dashboard_serves_our_study(url, task_dir) -> None:
    work_here(task_dir, "seen", trials=3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = subprocess.Popen(
        [Path(sys.executable).parent / "optuna-dashboard", url.reveal(), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}") as answer:
                return loads(answer.read())
        except OSError:
            return None

    try:
        wait_for(lambda: get("studies") is not None)
        studies = get("studies")["study_summaries"]
        assert [study["study_name"] for study in studies] == ["seen"]
        trials = get(f"studies/{studies[0]['study_id']}")["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]
        names = {parameter["name"] for trial in trials for parameter in trial["params"]}
        assert names >= {"cyclic.max_lr", "cyclic.mode"}
        assert all(re.fullmatch("Complete|Pruned", trial["state"]) for trial in trials)
    finally:
        dashboard.terminate()
        dashboard.communicate()
