"""The processes of a group: how they are told to leave, and what is told of their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import PATIENCE, wait_for

from clrsearch.launch.elastic import end_as, group_code

STARTER = (
    "import sys\n"
    "from clrsearch.launch import Command, end_as, run_ranks\n"
    "command = Command(arguments=(sys.executable, '-c', sys.argv[1]))\n"
    "code = run_ranks(command, 2, ends_with_parent=True)\n"
    "end_as(code)\n"
    "sys.exit(code)\n"
)
WAITING = (
    "import os, pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "place = pathlib.Path({folder!r}) / os.environ['RANK']\n"
    "place.write_text(' '.join(os.environ[name] for name in"
    " ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')))\n"
    "sys.stdin.read()\n"
    "place.with_suffix('.asked').touch()\n"
    "{then}\n"
)


def start(folder: Path, then: str) -> subprocess.Popen[str]:
    text = WAITING.format(folder=str(folder), then=then)
    started = subprocess.Popen(
        [sys.executable, "-c", STARTER, text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: [(folder / rank).exists() for rank in "01"] == [True, True])
    wait_for(lambda: (folder / "0").read_text() == "2 0 127.0.0.1")
    wait_for(lambda: (folder / "1").read_text() == "2 1 127.0.0.1")
    return started


@pytest.mark.parametrize("how", ["SIGINT", "SIGUSR2", "parent"])
def test_all_are_asked_to_leave_and_the_first_ones_code_is_the_groups(tmp_path, how) -> None:
    group = start(tmp_path, "sys.exit(3 if os.environ['RANK'] == '0' else 8)")
    if how == "parent":
        group.stdin.close()
        group.stdin = None
    else:
        group.send_signal(getattr(signal, how))
    out, errors = group.communicate(timeout=PATIENCE)
    assert (group.returncode, out, errors) == (3, "", "")
    assert [(tmp_path / f"{rank}.asked").exists() for rank in "01"] == [True, True]


def test_a_second_ctrl_c_ends_them_at_once(tmp_path) -> None:
    group = start(tmp_path, "time.sleep(1000)")
    group.send_signal(signal.SIGINT)
    wait_for(lambda: (tmp_path / "0.asked").exists())
    group.send_signal(signal.SIGINT)
    assert group.wait(timeout=20) == 130
    group.communicate()


def test_a_process_ends_as_its_group_did() -> None:
    end_as(0)
    pid = os.fork()
    if pid == 0:
        end_as(-signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({0: 3}, 3),
        ({1: -9, 0: 8}, -9),  # rank 0 left because rank 1 was killed
        ({0: -11, 1: 8}, -11),
        ({1: 4}, 4),
        ({0: 4, 1: -9}, 4),  # rank 1 did not leave in time
        ({0: -signal.SIGTERM, 1: 1}, 1),
        ({0: 8, 1: 8}, 8),
    ],
)
def test_the_code_of_a_group_is_that_of_whoever_had_a_reason(codes, code) -> None:
    assert group_code(codes) == code
