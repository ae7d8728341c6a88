"""Local workers are child processes: started, watched, asked to leave, ended."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clrsearch.errors import StorageError
from clrsearch.launch import Command, Ended, Launcher, LocalLauncher, how_it_ended
from clrsearch.launch.local import LOG_BYTES


def program(text: str, name: str = "", **environment: str) -> Command:
    return Command(arguments=(sys.executable, "-u", "-c", text), environment=environment, name=name)


def all_ended(launcher: Launcher) -> list[Ended]:
    ended = []
    while launcher.running():
        ended += launcher.poll()
        time.sleep(0.02)
    return sorted(ended, key=lambda each: each.index)


def test_exit_codes_and_output_are_kept(tmp_path) -> None:
    launcher = LocalLauncher(tmp_path)
    launcher.start(
        [
            program("import os; print('hello'); print(repr(input()))", name="gpu1:7:ab"),
            program("import sys; print('one'); print('two', file=sys.stderr); sys.exit(2)"),
        ]
    )
    assert launcher.running() == 2
    launcher._children[0][0].stdin.close()  # as if this process had ended
    first, second = all_ended(launcher)
    assert (first.index, first.code, first.log) == (0, 1, tmp_path / "gpu1-7-ab.log")
    assert first.said.startswith("hello\nTraceback")
    assert first.said.endswith("EOFError: EOF when reading a line")
    assert second == Ended(index=1, code=2, said="one\ntwo", log=tmp_path / "1.log")
    assert second.log.read_text() == "one\ntwo\n"
    assert launcher.poll() == []


def test_a_folder_that_is_gone_is_named(tmp_path) -> None:
    with pytest.raises(StorageError, match=r"output cannot be written to .*none/0.log: No such"):
        LocalLauncher(tmp_path / "none").start([program("")])


def test_a_log_does_not_grow_without_bounds(tmp_path) -> None:
    text = f"for n in range({LOG_BYTES // 5}): print(f'{{n:07}}')"
    command = Command(arguments=(sys.executable, "-c", f"{text}\ninput()"))
    launcher = LocalLauncher(tmp_path)
    launcher.start([command])
    log = tmp_path / "0.log"
    last = f"{LOG_BYTES // 5 - 1:07}"
    while not log.read_bytes().rstrip().endswith(last.encode()):  # it is buffered
        if launcher._children[0][0].stdin.closed:
            break
        launcher.poll()
        if log.stat().st_size > LOG_BYTES // 5 * 4:
            launcher._children[0][0].stdin.close()
    (ended,) = all_ended(launcher)
    assert ended.code == 1
    assert log.stat().st_size <= LOG_BYTES
    lines = log.read_text().splitlines()
    assert lines[0] == "[what came before has been dropped]"
    assert last in lines
    whole = [line for line in lines[1:] if line.isdecimal() and len(line) == 7]
    assert len(whole) > len(lines) - 10  # a write in the last instant before the cut is lost
    kept = list(map(int, whole))
    assert kept == sorted(kept)


def test_a_command_brings_its_environment(tmp_path) -> None:
    launcher = LocalLauncher(tmp_path)
    launcher.start([program("import os, sys; sys.exit(int(os.environ['CODE']))", CODE="7")])
    assert all_ended(launcher)[0].how == "exited with code 7"


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (LocalLauncher.stop, "died of signal 15 (SIGTERM)"),
        (LocalLauncher.kill, "died of signal 9 (SIGKILL)"),
    ],
)
def test_stop_asks_and_kill_does_not(tmp_path, end, how) -> None:
    launcher = LocalLauncher(tmp_path)
    launcher.start([program("import time; time.sleep(60)")])
    end(launcher)
    assert all_ended(launcher)[0].how == how


def test_children_see_their_parent_end(tmp_path) -> None:
    child = f"import sys; sys.stdin.read(); open({str(tmp_path / 'left')!r}, 'w')"
    parent = (
        "import sys, time; from pathlib import Path; from clrsearch.launch import *\n"
        f"command = Command(arguments=(sys.executable, '-c', {child!r}))\n"
        f"LocalLauncher(Path({str(tmp_path)!r})).start([command] * 2)\n"
        "print('started', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"started\n"
        assert not (tmp_path / "left").exists()
        running.kill()
    deadline = time.monotonic() + 120
    while not (tmp_path / "left").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ends_are_told_by_number_and_name() -> None:
    assert how_it_ended(-11) == "died of signal 11 (SIGSEGV)"
    assert how_it_ended(-40) == "died of signal 40"
    assert how_it_ended(0) == "exited with code 0"
