"""``clrsearch tutorial`` as a newcomer meets it: in a terminal, in a pipe, as a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pexpect
import pytest
from running import PATIENCE

from clrsearch import service

SMALL = """
from clrsearch import cli
from clrsearch.service import tour

tour.TRIALS, tour.SEEDS = {trials}, 1
cli.main()
"""
TITLES = ("Search", "The schedule", "The verdict", "The code", "The report", "Your own model")
ASKED = "Enter runs it, q leaves: "


def small(trials: int) -> list[str]:
    """The arguments of Python for a tutorial of so few trials."""
    return ["-c", SMALL.format(trials=trials), "tutorial"]


@pytest.fixture
def terminal(tmp_path, url):
    """Starts the tutorial in a terminal, which is closed after the test."""
    started = []

    def start(trials: int) -> pexpect.spawn:
        how = {"cwd": tmp_path, "encoding": "utf-8", "timeout": PATIENCE, "dimensions": (40, 100)}
        started.append(pexpect.spawn(sys.executable, small(trials), **how))
        return started[-1]

    yield start
    for each in started:
        each.close(force=True)


@pytest.fixture
def piped(tmp_path, url):
    """Runs a small tutorial without a terminal."""
    return partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, input="")


def ended(shown: pexpect.spawn) -> int:
    shown.expect(pexpect.EOF)
    shown.wait()
    return shown.exitstatus


def test_a_walk_through_in_a_terminal(terminal, url, tmp_path, monkeypatch) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    shown, commands = terminal(trials=2), []
    for number, title in enumerate(TITLES, start=1):
        shown.expect_exact(f"{number}/6  {title}")
        shown.expect(r"    (clrsearch [^\r\n\x1b]+)")
        commands.append(shown.match[1])
        shown.expect_exact(ASKED)
        if number == 1:
            shown.sendline("what?")
            shown.expect_exact(ASKED)
        shown.sendline("")
        shown.expect({"The schedule": "█", "The code": "def make_scheduler"}.get(title, ""))
    shown.expect_exact("clrsearch run --task mine.py:Mine --trials 30")
    shown.expect_exact(f"To delete all of it: rm -r {tmp_path}/clrsearch-tutorial")
    assert ended(shown) == 0
    given = "--storage sqlite:///tutorial.db"
    assert commands == [
        f"clrsearch run --name tutorial --trials 2 {given}",
        f"clrsearch preview tutorial {given}",
        f"clrsearch confirm tutorial --seeds 1 {given}",
        f"clrsearch best tutorial {given}",
        f"clrsearch report tutorial --output report.html {given}",
        "clrsearch new mine.py",
    ]
    folder = tmp_path / "clrsearch-tutorial"
    page = folder / "report.html"
    assert (tmp_path / "opened").read_text() == f"{page.as_uri()}\n"
    assert not url.file.exists()
    assert (folder / "mine.py").exists()
    assert service.show("tutorial", storage=f"sqlite:///{folder}/tutorial.db").snapshot.done == 2


@pytest.mark.parametrize("key", ["q\n", "\x03", "\x04"])
def test_it_is_left_at_a_question(terminal, tmp_path, key) -> None:
    shown = terminal(trials=2)
    shown.expect_exact(ASKED)
    shown.send(key)
    shown.expect_exact("To go on: clrsearch tutorial")
    assert ended(shown) == 0
    assert list((tmp_path / "clrsearch-tutorial").iterdir()) == []


def test_ctrl_c_saves_what_runs_and_the_next_one_goes_on(terminal, piped, tmp_path) -> None:
    shown = terminal(trials=3)
    shown.expect_exact(ASKED)
    shown.sendline("")
    shown.expect(r"\d of 3 trials")
    shown.sendintr()
    shown.expect_exact("Interrupted. To resume:")
    shown.expect_exact("To go on: clrsearch tutorial")
    assert ended(shown) == 130
    folder = tmp_path / "clrsearch-tutorial"
    before = service.show("tutorial", storage=f"sqlite:///{folder}/tutorial.db").snapshot
    assert before.done < 3
    (folder / "mine.py").write_text("mine")
    done = piped([sys.executable, *small(3)], cwd=folder)  # not in a folder within it
    assert done.returncode == 0, done.stderr
    assert ASKED not in done.stdout
    assert all(f"{number}/6  {title}" in done.stdout for number, title in enumerate(TITLES, 1))
    assert "mine.py is there already, and is left as it is.\n" in done.stdout
    assert (folder / "mine.py").read_text() == "mine"
    after = service.show("tutorial", storage=f"sqlite:///{folder}/tutorial.db").snapshot
    assert after.done == 3
    params = {record.number: record.params for record in after.records}
    assert all(params[record.number] == record.params for record in before.records)


def test_a_command_that_fails_ends_it(piped, tmp_path) -> None:
    folder = tmp_path / "clrsearch-tutorial"
    folder.mkdir()
    (folder / "tutorial.db").write_text("no database")
    done = piped([sys.executable, *small(2)])
    assert done.returncode == 2
    assert "1/6" in done.stdout
    assert "2/6" not in done.stdout
    assert "clrsearch: the tutorial ends here, with exit code 2\n" in done.stderr
    assert done.stderr.endswith("Then start again with clrsearch tutorial.\n")


def test_a_folder_that_cannot_be_made_is_told(clrsearch, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clrsearch-tutorial").write_text("mine")
    code, out, errors = clrsearch("tutorial")
    assert (code, out) == (2, "")
    told = f"the folder {tmp_path}/clrsearch-tutorial cannot be created: File exists"
    assert errors == f"clrsearch: {told}: start the tutorial in another folder\n"


def test_the_notebook_is_written_once(clrsearch, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, errors = clrsearch("tutorial", "--notebook")
    assert (code, errors) == (0, "")
    wrote, how = out.splitlines()
    assert wrote == "wrote clrsearch-tutorial.ipynb"
    assert how.startswith("To open it: p")  # with pip where no Jupyter is installed
    file = tmp_path / "clrsearch-tutorial.ipynb"
    assert os.listdir() == [file.name]
    assert json.loads(file.read_text())["nbformat"] == 4
    file.write_text("mine")
    code, out, errors = clrsearch("tutorial", "--notebook")
    assert (code, out) == (2, "")
    assert errors == f"clrsearch: {file.name} already exists and will not be overwritten\n"
    assert file.read_text() == "mine"
    code, _, errors = clrsearch("tutorial", "--book")
    assert (code, len(errors.splitlines())) == (2, 1)
