"""Children that multiprocessing spawns import task files, in every way that a task's code runs."""

from __future__ import annotations

import subprocess
import sys

from clrsearch import service

TOLD = ("--epochs", "4", "--set", "metric=error", "--set", "direction=minimize", "--device", "cpu")


def test_a_worker_and_the_process_that_tries_the_loop_first(
    clrsearch, url, task_dir, monkeypatch
) -> None:
    monkeypatch.chdir(task_dir)
    run = ("run", "--task", "spawning.py:train", "--name", "mine", "--trials", "2", *TOLD)
    arguments = ("--no-confirm", "--workers", "1", "--set", "args='--data x'")
    code, _, errors = clrsearch(*run, *arguments)
    assert (code, errors) == (0, "")
    assert [each.state for each in service.show("mine").snapshot.records] == ["complete"] * 2


def test_the_commands_own_process(clrsearch, url, task_dir, monkeypatch) -> None:
    monkeypatch.chdir(task_dir)
    run = ("run", "--task", "spawning.py:Spawning", "--name", "mine", "--trials", "1")
    code, _, errors = clrsearch(*run, "--no-confirm", "--workers", "0", "--device", "cpu")
    assert (code, errors) == (0, "")
    assert [each.state for each in service.show("mine").snapshot.records] == ["complete"]


def test_a_script_that_searches_and_one_that_trains_alone(url, task_dir) -> None:
    done = subprocess.run(
        [sys.executable, task_dir / "spawning.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["complete", "epoch", "1/1:"]
