"""Every way in which a task can fail to load says which one it was."""

from __future__ import annotations

import hashlib
import sys

import pytest

from clrsearch.errors import TaskError, TaskRaised
from clrsearch.tasks import load_task
from clrsearch.tasks.digits import Digits


def test_a_built_in_task_has_a_short_name(tmp_path) -> None:
    assert isinstance(load_task("digits", folder=tmp_path).task, Digits)


def test_a_module_and_a_file_are_loaded(task_dir, tmp_path) -> None:
    assert isinstance(load_task("clrsearch.tasks.digits:Digits", folder=tmp_path).task, Digits)
    found = load_task("tiny.py:Tiny", folder=task_dir)
    assert type(found.task).__name__ == "Tiny"
    assert found.source == hashlib.sha256((task_dir / "tiny.py").read_bytes()).hexdigest()


def test_options_are_the_tasks_fields(tmp_path) -> None:
    digits = load_task("digits", options={"optimizer": "adam"}, folder=tmp_path).task
    assert digits.options.model_dump() == {"optimizer": "adam"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digitz", {}, "no built-in task digitz .* did you mean digits"),
        ("tiny.py", {}, "name a class or function in the file: tiny.py:NAME"),
        ("/abs/mine.py:Tiny", {}, "/abs/mine.py: give the path relative to the task"),
        ("../mine.py:Tiny", {}, "../mine.py: give the path relative to the task"),
        ("missing.py:Tiny", {}, "no such file: .*missing.py"),
        ("no_such_package.module:Tiny", {}, "no module no_such_package.module"),
        ("tiny.py:Tinny", {}, "tiny.py has no Tinny; its tasks: Tiny, "),
        ("clrsearch.errors:Tiny", {}, "clrsearch.errors has no Tiny and defines no task"),
        ("tiny.py:not_a_task", {}, "is the int 3, neither a class derived from clrsearch.Task nor"),
        (
            "tiny.py:Listed",
            {},
            "is the class Listed, neither a class derived from clrsearch.Task nor",
        ),
        ("tiny.py:Incomplete", {}, "does not define metric, direction"),
        ("careless.py:NoMethods", {}, "does not define loss, measure, model, optimizer"),
        ("careless.py:MetricList", {}, r"metric must be a string, not \('error',\)"),
        ("argued.py:takes_nothing", {}, r"takes_nothing\(\) must accept the run as its only"),
        ("argued.py:takes_two", {}, r"takes_two\(run, other\) must accept the run as its only"),
        ("tiny.py:WrongDirection", {}, "direction must be minimize or maximize, not 'minimise'"),
        ("tiny.py:NoEpochs", {}, "epochs must be a positive integer, not 0"),
        ("tiny.py:Tiny", {"optimiser": "adam"}, "options.optimiser: is unknown.*: optimizer"),
        ("tiny.py:Tiny", {"optimizer": "lion"}, "options.optimizer: .*'sgd', 'plain' or 'adam'"),
    ],
)
def test_each_failure_is_told_apart(name, options, message, task_dir) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        load_task(name, options=options, folder=task_dir)
    assert not isinstance(caught.value, TaskRaised)


@pytest.mark.parametrize(
    ("name", "message", "line"),
    [
        ("broken.py:Tiny", "ModuleNotFoundError while importing broken.py", "no_such_module"),
        ("tiny.py:NotConstructed", "ValueError while constructing", "the data folder is missing"),
    ],
)
def test_an_exception_inside_comes_with_the_users_own_traceback(
    name, message, line, task_dir
) -> None:
    with pytest.raises(TaskRaised, match=message) as caught:
        load_task(name, folder=task_dir)
    frames = [text for text in caught.value.traceback.splitlines() if text.startswith("  File")]
    assert line in caught.value.traceback
    assert frames
    assert str(task_dir) in frames[0]
    assert len(frames) == 1


def test_a_file_finds_the_arguments_of_its_study(task_dir) -> None:
    before = sys.argv
    for arguments in ((), ("--data", "x"), ("--data", "y z")):
        found = load_task("argued.py:Argued", arguments=arguments, folder=task_dir).task
        assert found.constructed_with == list(arguments)
        assert list(arguments) == sys.modules[type(found).__module__].IMPORTED_WITH
    assert sys.argv is before


def test_so_does_a_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "argued_module.py").write_text(
        "import sys\nfound = sys.argv\ndef train(run): ...\n"
    )
    loop = load_task("argued_module:train", arguments=("--data", "x"), folder=tmp_path).task
    assert loop.arguments == ("--data", "x")
    assert sys.modules["argued_module"].found == ["argued_module", "--data", "x"]
    del sys.modules["argued_module"]
    sys.path.remove(str(tmp_path))
