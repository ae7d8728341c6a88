"""Signals are noted, and whoever trains or sleeps asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from clrsearch.training import Interrupted
from clrsearch.worker.signals import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
def test_a_signal_is_noted_and_ends_a_sleep(number) -> None:
    interruption = Interruption()
    with interruption.listening():
        interruption.sleep(0.01)
        assert not interruption.asked
        threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
        began = time.monotonic()
        with pytest.raises(Interrupted):
            interruption.sleep(60)
        assert time.monotonic() - began < 30
        assert interruption.asked


def test_it_breaks_off_nothing_else() -> None:
    interruption = Interruption()
    with interruption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        written = sum(range(1000))
        assert written == 499_500
        assert interruption.asked


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption().listening():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_closed_terminal_means_nothing_where_that_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_leaves_when_its_parent_ends() -> None:
    program = (
        "from clrsearch.training import Interrupted\n"
        "from clrsearch.worker.signals import Interruption\n"
        "interruption = Interruption()\n"
        "interruption.ask_when_parent_ends()\n"
        "print(open(0).read() == '', flush=True)\n"
        "try: interruption.sleep(600)\n"
        "except Interrupted: print('left')\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as child:
        assert child.stdout.readline() == "True\n"  # what runs there finds nothing to read
        child.stdin.close()
        assert child.stdout.read() == "left\n"


def test_a_task_cannot_swallow_it() -> None:
    assert not issubclass(Interrupted, Exception)


def test_off_the_main_thread_it_listens_to_nothing() -> None:
    seen = []

    def listen() -> None:
        with Interruption().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_second_ctrl_c_exits_at_once() -> None:
    program = (
        "import os, signal, time\n"
        "from clrsearch.worker.signals import Interruption\n"
        "with Interruption().listening():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 130
