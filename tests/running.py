"""Studies that workers in other processes run: how one is begun, waited for and read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from clrsearch import service
from clrsearch.search import ConfirmPlan, Record, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database
from clrsearch.tasks import load_task
from clrsearch.training import probe

PATIENCE = 300.0  # seconds for what takes a few on an idle machine
ALONE = ConfirmPlan(enabled=False)  # the search alone
Found = TypeVar("Found")


def begin(url: StorageUrl, task_dir: Path, **changes: Any) -> None:
    """Make the study ``mine``: 4 trials of 8 epochs of a fifth of a second, but for ``changes``."""
    given: dict[str, Any] = {
        "families": ("cyclic",),
        "task": "tiny.py:Paced",
        "trials": 4,
        "pruner": "none",
        "confirm": ALONE,
    }
    plan = StudyPlan(**(given | changes))
    facts = probe(
        load_task(plan.task, folder=task_dir),
        epochs=plan.epochs,
        metric=plan.metric,
        direction=plan.direction,
        device=torch.device("cpu"),
    )
    with open_database(url, create=True) as database:
        Study.create(database, "mine", plan, facts, service.versions(task_dir))


def wait_for(condition: Callable[[], Found]) -> Found:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


def records(url: StorageUrl) -> list[Record]:
    """All trials of ``mine``."""
    with open_database(url) as database:
        return Study.open(database, "mine").history.records()


def command(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """A command of clrsearch, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "clrsearch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]
