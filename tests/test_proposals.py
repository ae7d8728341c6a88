"""Every command that is proposed runs as it stands, in a shell, where it was printed."""

from __future__ import annotations

import html
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clrsearch import proposals
from clrsearch.cli.app import takes
from clrsearch.search import Study
from clrsearch.storage import StorageUrl, open_database

HOSTILE = 'a;ls $(id) "é'
QUOTED = "'a;ls $(id) \"é'"


@pytest.fixture
def folder(tmp_path: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a task in a folder below; no database is found without an option."""
    (tmp_path / "my tasks").mkdir()
    shutil.copy(task_dir / "tiny.py", tmp_path / "my tasks")
    shutil.copy(task_dir / "tiny.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLRSEARCH_STORAGE", "sqlite:////no/such/folder/studies.db")
    return tmp_path


def begin(line: str) -> subprocess.Popen[str]:
    """A line in a shell of its own."""
    function = f'clrsearch() {{ {shlex.quote(sys.executable)} -m clrsearch "$@"; }}; '
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        ["bash", "-c", function + line], text=True, start_new_session=True, **pipes
    )


def steps(out: str) -> dict[str, str]:
    """The next steps that ``run`` prints in the end, by their labels."""
    lines = out.partition("Saved in ")[2].splitlines()[1:]
    return {label: line.strip() for label, _, line in (each.partition(":") for each in lines)}


def test_words_are_quoted_and_options_are_kept() -> None:
    assert proposals.command("show", "mine", 3) == "clrsearch show mine 3"
    assert proposals.command("show", "a;ls $(id)") == "clrsearch show 'a;ls $(id)'"
    assert proposals.command("show", "-x", json=True) == "clrsearch show --json -- -x"
    with proposals.command_line(["status", "mine"], takes):
        proposals.carry("--storage", "sqlite:///my studies.db")
        proposals.carry("--task-dir", Path("tasks"))
        storage = "--storage 'sqlite:///my studies.db'"
        shown = proposals.command("show", "mine")
        assert shown == f"clrsearch show mine {storage} --task-dir tasks"
        assert proposals.command("retry", "mine") == f"clrsearch retry mine {storage}"
        assert proposals.command("db upgrade") == f"clrsearch db upgrade {storage}"
        assert proposals.command("delete", "-x") == f"clrsearch delete {storage} -- -x"
    assert proposals.command("retry", "mine") == "clrsearch retry mine"


def test_what_cannot_be_shown_is_written_as_a_shell_reads_it() -> None:
    name = "it's\n\x1b[31m \u202e\\ é"
    line = proposals.command("show", name)
    assert line == r"clrsearch show $'it\'s\x0a\x1b[31m \U0000202e\\ é'"
    said = subprocess.run(
        ["bash", "-c", f"printf %s {line.removeprefix('clrsearch show ')}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert said.stdout.decode() == name


def test_the_same_command_again_with_other_options() -> None:
    words = ["run", "my study.toml", "--trials=10", "--trials", "20", "--json"]
    with proposals.command_line(words, takes):
        assert proposals.again() == shlex.join(["clrsearch", *words])
        assert proposals.again(trials=70) == "clrsearch run 'my study.toml' --json --trials 70"
        assert proposals.again(json=True).count("--json") == 1
        assert proposals.again(host="all") is None
    with proposals.command_line(["run", "--trials", "20", "--", "-x.toml"], takes):
        assert proposals.again(trials=70) == "clrsearch run --trials 70 -- -x.toml"
    with proposals.command_line(["launch", "local", "mine", "--workers", "2"], takes):
        assert proposals.again(trials=70) is None
        assert proposals.again(allow_drift=True).endswith("--workers 2 --allow-drift")
    assert proposals.again(trials=70) == "the same call with trials=70"


def test_the_next_steps_run_in_a_shell(folder) -> None:
    options = "--storage 'sqlite:///my studies.db'"
    line = f"clrsearch run 'my tasks/mine.toml' --no-confirm --workers 0 --name {QUOTED} {options}"
    (folder / "my tasks" / "mine.toml").write_text('task = "tiny.py:Tiny"\ntrials = 2\n')
    began = begin(line)
    out, errors = began.communicate(timeout=300)
    assert (began.returncode, errors.count("Traceback")) == (0, 0), errors
    found = steps(out)
    lies = f"{options} --task-dir 'my tasks'"
    number = found["Replay that trial"].removeprefix(f"clrsearch replay {QUOTED} ").split()[0]
    assert found == {
        "Save this code": f"clrsearch best {QUOTED} {lies} > schedule.py",
        "Replay that trial": f"clrsearch replay {QUOTED} {number} {lies}",
        "Search further": f"{line} --trials 52",
        "Start another study": line.replace(QUOTED, f"{QUOTED[:-1]}-2'").replace(
            f"--name {QUOTED[:-1]}-2' {options}", f"{options} --name {QUOTED[:-1]}-2'"
        ),
        "See all trials": f"clrsearch dashboard {QUOTED} {lies}",
    }
    saved = begin(found["Save this code"])
    saved.communicate(timeout=300)
    assert "make_scheduler" in (folder / "schedule.py").read_text()
    for label in ("Replay that trial", "Start another study"):
        went = begin(found[label])
        _, errors = went.communicate(timeout=300)
        assert went.returncode == 0, errors
    dashboard = begin(found["See all trials"])
    assert dashboard.stdout is not None
    assert dashboard.stdout.readline().startswith("http://127.0.0.1:")
    os.killpg(dashboard.pid, signal.SIGINT)
    dashboard.communicate(timeout=60)


@pytest.fixture
def study(folder, clrsearch) -> tuple[str, ...]:
    """A finished study of two trials; the options with which it and its task are found."""
    (folder / "url").write_text(f"sqlite:///{folder / 'studies.db'}\n")
    options = ("--task-dir", "my tasks", "--storage-file", "url")
    began = ("--name", HOSTILE, "--task", "tiny.py:Tiny", "--trials", "2", "--workers", "0")
    code, _, errors = clrsearch("run", *began, "--no-confirm", *options)
    assert code == 0, errors
    return options


@pytest.fixture
def proposes(clrsearch) -> Callable[..., str]:
    """Run a command, find a line that it proposes, and run that too: what that says.

    What it proposes trains in this process: others would have to import torch first.
    """

    def run(line: str, *arguments: str) -> str:
        _, out, errors = clrsearch(*arguments)
        assert line in out + errors
        program, *words = shlex.split(line)
        assert program == "clrsearch"
        here = ("--workers", "0") if words[0] == "run" else ()
        code, out, errors = clrsearch(*words, *here)
        assert code == 0, errors
        return out

    return run


@contextmanager
def opened(folder: Path) -> Iterator[Study]:
    """The study of :func:`study`."""
    with open_database(StorageUrl(f"sqlite:///{folder / 'studies.db'}")) as database:
        yield Study.open(database, HOSTILE)


LIES = "--task-dir 'my tasks' --storage-file url"


def test_what_a_range_test_and_another_plan_propose(study, folder, proposes) -> None:
    drawn = f"clrsearch range-test {QUOTED} --output range-test.png {LIES}"
    proposes(drawn, "range-test", HOSTILE, *study)
    assert (folder / "range-test.png").exists()
    run = ("run", "--name", HOSTILE, "--task", "tiny.py:Tiny", "--no-confirm", "--epochs", "8")
    more = ("--trials", "2", "--workers", "0")
    begun = f"clrsearch run --task tiny.py:Tiny --no-confirm --epochs 8 {LIES} {' '.join(more)}"
    proposes(f"{begun} --name {QUOTED[:-1]}-2'", *run, *study, *more)


def test_what_an_unfinished_study_proposes(study, folder, proposes) -> None:
    launch = ("launch", "local", HOSTILE, "--workers", "1", *study)
    proposes(f"clrsearch run --name {QUOTED} --task tiny.py:Tiny --trials 52 {LIES}", *launch)
    with opened(folder) as opened_study:
        opened_study.grow(54)
    goes_on = f"clrsearch run --name {QUOTED} --task tiny.py:Tiny --trials 54 {LIES}"
    proposes(goes_on, "confirm", HOSTILE, *study)
    with opened(folder) as opened_study:
        opened_study.grow(55)
    proposes(f"clrsearch worker {QUOTED} --storage-file url", "status", HOSTILE, *study[2:])


def test_what_a_report_proposes(study, folder, clrsearch, proposes) -> None:
    code, _, errors = clrsearch("report", HOSTILE, "-o", "page.html", *study)
    assert code == 0, errors
    page = html.unescape((folder / "page.html").read_text())
    (folder / "study.toml").write_text('task = "tiny.py:Tiny"\ntrials = 2\n')
    for line in (
        f"clrsearch run study.toml --name {QUOTED} {LIES}",
        f"clrsearch best {QUOTED} {LIES}",
    ):
        assert line in page
        _, *words = shlex.split(line)
        here = ("--workers", "0") if words[0] == "run" else ()
        assert clrsearch(*words, *here)[0] == 0, line
