"""As many slots for each family, whatever becomes of workers and trials, and one trial for each."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe
from clrsearch.worker import WorkerSettings


def asked(trials, task_dir) -> StudyPlan:
    """A comparison of four families with so many trials."""
    plan = StudyPlan(
        task="fragile.py:Fragile",
        trials=trials,
        families=("cyclic", "linear", "cosine"),
        baseline="constant",
        pruner="none",
        confirm=ConfirmPlan(enabled=False),
    )
    return service.comparison(plan, task_dir=task_dir).plan


def begin(url, task_dir, plan) -> None:
    facts = probe(load_task(plan.task, folder=task_dir), device=torch.device("cpu"))
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


def look(url):
    """The rows of the slot table, and all trials by their number."""
    with open_database(url) as database, database.engine.connect() as connection:
        query = "SELECT number, family, state, trial, losses FROM clrsearch_slots ORDER BY number"
        rows = connection.exec_driver_sql(query).all()
        return rows, {each.number: each for each in Study.open(database, "mine").history.records()}


def require_budget(url, slots, *, ends, trials) -> None:
    """So many slots for each family, each ended by one trial of its own; so many trials in all."""
    rows, records = look(url)
    assert Counter(row.family for row in rows) == slots
    assert max(slots.values()) - min(slots.values()) <= 1
    assert Counter(row.state for row in rows) == ends
    assert len(records) == trials
    final = [records[row.trial] for row in rows]
    assert len({record.number for record in final}) == len(rows)
    assert [(r.slot, r.family, r.end) for r in final] == [
        (row.number, row.family, row.state) for row in rows
    ]
    others = [record for record in records.values() if record not in final]
    assert {record.state for record in others} <= {"failed"}


def kill_while_it_holds_a_slot(url, worker) -> bool:
    """Stop a worker's process, and end it by SIGKILL if it holds a slot; whether it did."""
    tasks = Path("/proc/self/task").glob("*/children")
    for pid in [int(pid) for path in tasks for pid in path.read_text().split()]:
        if f"{worker}\0".encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
            continue
        os.kill(pid, signal.SIGSTOP)
        with open_database(url) as database:
            holds = any(c.worker == worker for c in Study.open(database, "mine").slots.claims())
        os.kill(pid, signal.SIGKILL if holds else signal.SIGCONT)
        return holds
    return False


def test_budgets_stay_equal_after_failures_kills_retries_and_added_trials(
    url, task_dir, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("FRAGILE_DIR", str(tmp_path))
    begin(url, task_dir, asked(10, task_dir))
    service.work("mine", settings=WorkerSettings(device="cpu", task_dir=task_dir))
    # slots 3 and 7 are the baseline's and fail twice each, slot 0 fails once
    slots = {"cyclic": 3, "linear": 3, "cosine": 2, "constant": 2}
    require_budget(url, slots, ends={"complete": 8, "failed": 2}, trials=10 + 2 + 1)

    (tmp_path / "mended").touch()
    assert service.retry("mine") == 2
    killed: set[str] = set()

    def kill(snapshot) -> None:
        for record in snapshot.running:
            if len(killed) < 2 and kill_while_it_holds_a_slot(url, record.worker):
                killed.add(record.worker)

    settings = WorkerSettings(device="cpu", task_dir=task_dir)
    keys = {"name": "mine", "settings": settings}
    service.run(asked(17, task_dir), workers=2, on_change=kill, **keys)
    assert len(killed) == sum(row.losses for row in look(url)[0]) == 2
    slots = {"cyclic": 5, "linear": 4, "cosine": 4, "constant": 4}
    require_budget(url, slots, ends={"complete": 17}, trials=13 + 2 + 7)

    service.run(asked(23, task_dir), workers=0, **keys)
    slots = {"cyclic": 6, "linear": 6, "cosine": 6, "constant": 5}
    require_budget(url, slots, ends={"complete": 23}, trials=22 + 6)
