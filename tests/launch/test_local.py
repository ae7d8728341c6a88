"""Local workers are child processes: started, watched, asked to leave, ended."""

from __future__ import annotations

import sys
import time

from clrsearch.launch import Command, Ended, Launcher, LocalLauncher


def program(text: str, **environment: str) -> Command:
    return Command(arguments=(sys.executable, "-c", text), environment=environment)


def all_ended(launcher: Launcher) -> list[Ended]:
    ended = []
    while launcher.running():
        ended += launcher.poll()
        time.sleep(0.02)
    return sorted(ended, key=lambda each: each.index)


def test_exit_codes_and_complaints_are_kept() -> None:
    launcher = LocalLauncher()
    launcher.start(
        [
            program("print('heard by nobody')"),
            program("import sys; print('no such task', file=sys.stderr); sys.exit(2)"),
        ]
    )
    assert launcher.running() == 2
    assert all_ended(launcher) == [
        Ended(index=0, code=0, errors=""),
        Ended(index=1, code=2, errors="no such task"),
    ]
    assert launcher.poll() == []


def test_a_command_brings_its_environment() -> None:
    launcher = LocalLauncher()
    launcher.start([program("import os, sys; sys.exit(int(os.environ['CODE']))", CODE="7")])
    assert all_ended(launcher)[0].code == 7


def test_stop_asks_and_kill_does_not() -> None:
    for end, code in ((LocalLauncher.stop, -15), (LocalLauncher.kill, -9)):
        launcher = LocalLauncher()
        launcher.start([program("import time; time.sleep(60)")])
        end(launcher)
        assert all_ended(launcher)[0].code == code
