"""``clrsearch new``: what it writes runs as it is, and it writes over nothing."""

from __future__ import annotations

import shlex

import pytest

from clrsearch import service


@pytest.mark.parametrize("loop", [False, True])
def test_what_is_written_is_searched_by_the_command_it_names(
    clrsearch, url, tmp_path, monkeypatch, loop
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, errors = clrsearch("new", "spiral.py", *(["--loop"] if loop else []))
    assert (code, errors) == (0, "")
    program, *command = shlex.split(out.splitlines()[-1])
    assert program == "clrsearch"
    few = ("--trials", "3", "--workers", "0", "--set", "confirm.top=1", "--set", "confirm.seeds=1")
    code, _, errors = clrsearch(*command, *few)
    assert (code, errors) == (0, "")
    now = service.show("spiral").snapshot
    assert now.done == 3
    assert now.confirmed.test.keys() == {run.finalist for run in now.confirmed.runs}
    assert now.search_best.metrics["accuracy"] > 0.6  # it learns


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("there.py", "there.py already exists and will not be overwritten"),
        ("task.txt", "a task is a Python file"),
        ("no/folder/task.py", "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_told(clrsearch, tmp_path, monkeypatch, name, says) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    code, out, errors = clrsearch("new", name)
    assert (code, out) == (2, "")
    assert says in errors
    assert (tmp_path / "there.py").read_text() == "mine"
