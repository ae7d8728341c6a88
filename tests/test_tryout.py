"""The task is tried in a process of its own: its errors come out, its end is told, nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from clrsearch.errors import PlanError, TaskError, TaskRaised
from clrsearch.search import StudyPlan
from clrsearch.service.tryout import Tryout
from clrsearch.training import probe
from clrsearch.training.device import find_device

TASKS = """
import os, signal
from tiny import Tiny

print("imported")

class Exits(Tiny):
    def loss(self, output, target):
        os._exit(7)

class Crashes(Tiny):
    def data(self):
        os.kill(os.getpid(), signal.SIGSEGV)

class Hangs(Tiny):
    def data(self):
        open("pid", "w").write(str(os.getpid()))
        signal.pause()

def rate(step, steps_per_epoch):
    return 0.1 / (1 + step)

def falling(step, steps_per_epoch):
    return 3 - step
"""


@pytest.fixture
def folder(tmp_path, task_dir):
    (tmp_path / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    (tmp_path / "mine.py").write_text(TASKS)
    return tmp_path


def tryout(folder, task, **keys) -> Tryout:
    plan = StudyPlan(task=task, **keys)
    return Tryout(plan, device="cpu", task_dir=folder, data_dir=None)


def test_what_is_found_there_is_what_is_found_here(folder, tiny) -> None:
    keys = {"families": ("manual",), "baseline": "manual", "manual": "mine.py:rate"}
    with tryout(folder, "tiny.py:Tiny", **keys) as there:
        assert there.sources.task == tiny.source
        assert there.epochs == 4
        assert there.facts == probe(tiny, device=find_device("cpu"))
        function = there.rate_function(there.facts)
        assert [function(step, 4) for step in (0, 1, 15)] == [0.1, 0.05, 0.1 / 16]
        there.require_space(there._plan, there.facts)
        assert there.devices(3, slots=2) == ["cpu", "cpu"]
        assert len(there.range_test(there.facts).training) == 3
        child = there._answers._process
    assert child.returncode == 0


def test_a_task_that_ends_its_process_is_told_in_one_line(folder) -> None:
    how = r"mine.py:Exits: .* exited with code 7$"
    with tryout(folder, "mine.py:Exits") as there, pytest.raises(TaskError, match=how) as caught:
        _ = there.facts
    assert not isinstance(caught.value, TaskRaised)


def test_errors_come_out_as_they_were_raised(folder) -> None:
    with pytest.raises(TaskError, match=r"tiny.py has no Tinny; its tasks"):
        tryout(folder, "tiny.py:Tinny")
    with pytest.raises(TaskRaised, match="ValueError while constructing") as caught:
        tryout(folder, "tiny.py:NotConstructed")
    assert "the data folder is missing" in caught.value.traceback
    with (
        Tryout(
            StudyPlan(task="tiny.py:Tiny"), device="gpu9", task_dir=folder, data_dir=None
        ) as there,
        pytest.raises(PlanError, match="the device 'gpu9' cannot be used"),
    ):
        _ = there.facts
    keys = {"families": ("manual",), "baseline": "manual", "manual": "mine.py:falling"}
    message = r"manual does not fit: .*not 0 at step 3"
    with tryout(folder, "tiny.py:Tiny", **keys) as there, pytest.raises(PlanError, match=message):
        there.require_space(there._plan, there.facts)


def command(*arguments: str, cwd) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "clrsearch", "run", "--device", "cpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def test_run_says_so_and_stores_nothing(url, folder) -> None:
    running = command("--task", "mine.py:Crashes", "--json", cwd=folder)
    out, errors = running.communicate(timeout=300)
    assert (running.returncode, out) == (2, "")
    assert errors.splitlines() == [
        "imported",  # what a task prints is no output of ours
        "clrsearch: mine.py:Crashes: the process that loads the task died of signal 11 (SIGSEGV)",
    ]
    assert not url.file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_does_not_outlive_the_command(url, folder, number) -> None:
    running = command("--task", "mine.py:Hangs", cwd=folder)
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert running.poll() is None
        time.sleep(0.05)
    pid = (folder / "pid").read_text()
    running.send_signal(number)
    running.communicate(timeout=300)
    deadline = time.monotonic() + 120
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_itself_imports_neither_the_task_nor_torch(url, folder) -> None:
    program = (
        "import json, sys; from clrsearch import service; from clrsearch.search import StudyPlan\n"
        "plan = StudyPlan(task='tiny.py:Tiny', trials=1, confirm={'enabled': False})\n"
        "done = service.run(plan, workers=1).snapshot.done\n"
        "loaded = [each in sys.modules for each in ('torch', 'clrsearch.task_files.tiny')]\n"
        "print(json.dumps([done, *loaded]))"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == [1, False, False]
