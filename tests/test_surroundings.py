"""What lies in the current folder serves the task, and hides nothing that a worker imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clrsearch import service

TASK = """
import colour
import tiny
from tiny import Tiny


class Mine(Tiny):
    optimizer_name = colour.NAME
"""


def clrsearch(*arguments: str, cwd) -> str:
    """Run a command as its console script would: the folder is not on the path."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "clrsearch", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path, task_dir):
    """A task, its neighbours, a package, and files with the names of installed modules."""
    folder = tmp_path / "project"
    (folder / "mine" / "deep").mkdir(parents=True)
    for name in ("types.py", "random.py", "torch.py", "optuna.py", "clrsearch.py"):
        (folder / name).write_text("raise SystemExit('shadowed: ' + __name__)")
    (folder / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    (folder / "colour.py").write_text("NAME = 'blue'")
    (folder / "task.py").write_text(TASK)
    (folder / "mine" / "deep" / "work.py").write_text(TASK)
    return folder


@pytest.mark.parametrize("task", ["task.py:Mine", "mine.deep.work:Mine"])
def test_workers_import_what_the_command_imports(url, folder, task) -> None:
    options = ("--trials", "2", "--workers", "1", "--no-confirm", "--name", "mine", "--device")
    clrsearch("run", "--task", task, *options, "cpu", cwd=folder)
    (found,) = service.list_studies()
    assert found.done == 2


def test_a_neighbour_is_imported_and_an_installed_module_is_not_hidden(folder) -> None:
    program = (
        "import sys; from pathlib import Path; from clrsearch.tasks import load_task\n"
        "load_task('task.py:Mine', folder=Path.cwd())\n"
        "import colour, secrets, random\n"
        "print(sys.path[-1], colour.NAME, random.choice([1]))"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [os.fspath(folder), "blue", "1"], done.stderr
