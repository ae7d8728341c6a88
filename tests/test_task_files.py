"""The modules of task files: which file a child process finds by the name of one."""

from __future__ import annotations

import importlib
import multiprocessing
import sys

import pytest

from clrsearch.errors import TaskRaised
from clrsearch.tasks import load_task

OTHER = "raise SystemExit('another file')"


@pytest.fixture(autouse=True)
def own_path(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def leaves(folder, name, code) -> None:
    """Write a task file whose loop ends the process with an exit code."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"import sys\ndef train(run): sys.exit({code})\n")


def exit_code(method, folder, name) -> int | None:
    """How a child ends that is given the loop of a task file to run."""
    loop = load_task(f"{name}:train", folder=folder).task
    child = multiprocessing.get_context(method).Process(target=loop.function, args=(None,))
    child.start()
    child.join()
    return child.exitcode


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_finds_the_file_that_was_loaded_last(tmp_path, method) -> None:
    """Also after the fork server has started."""
    for number, folder in enumerate((tmp_path / "one", tmp_path / "two", tmp_path / "one"), 3):
        leaves(folder, "mine.py", number)
        assert exit_code(method, folder, "mine.py") == number


def test_neither_a_package_nor_an_installed_module_of_its_name(tmp_path, monkeypatch) -> None:
    leaves(tmp_path / "project", "mine.py", 3)
    for folder in (tmp_path / "project" / "mine", tmp_path / "before", tmp_path / "after"):
        folder.mkdir()
        for name in ("__init__.py", "mine.py"):
            (folder / name).write_text(OTHER)
    folders = [str(tmp_path / name) for name in ("before", "project", "after")]
    monkeypatch.setattr(sys, "path", [*sys.path, *folders])
    assert exit_code("spawn", tmp_path / "project", "mine.py") == 3


@pytest.mark.parametrize("name", ["v1.2.py", "my task.py", "random.py", "__init__.py"])
def test_any_name_will_do(tmp_path, name) -> None:
    leaves(tmp_path, name, 3)
    assert exit_code("spawn", tmp_path, name) == 3


def test_what_is_not_there_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'clrsearch\.task_files\.gone'"):
        importlib.import_module("clrsearch.task_files.gone")


def test_a_file_is_in_no_package(tmp_path) -> None:
    leaves(tmp_path, "beside.py", 3)
    (tmp_path / "mine.py").write_text("from .beside import train\n")
    with pytest.raises(TaskRaised, match="relative import with no known parent package"):
        load_task("mine.py:train", folder=tmp_path)
