"""What the tests share: a database of their own, and a task that trains in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from clrsearch.search import StudyPlan
from clrsearch.storage import StorageUrl
from clrsearch.tasks import LoadedTask, load_task

TASKS = Path(__file__).parent / "tasks_for_tests"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageUrl:
    """A database file that does not exist yet, and that every command uses."""
    text = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("CLRSEARCH_STORAGE", text)
    return StorageUrl(text)


@pytest.fixture
def task_dir() -> Path:
    """The folder of the tests' own tasks."""
    return TASKS


@pytest.fixture
def tiny() -> LoadedTask:
    """A linear model on 64 points."""
    return load_task("tiny.py:Tiny", folder=TASKS)


@pytest.fixture
def plan() -> StudyPlan:
    """A study of the tiny task: 6 slots of 4 epochs."""
    return StudyPlan(task="tiny.py:Tiny", trials=6)
